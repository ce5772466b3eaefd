"""Channel fusion: one embedding a frame from the user's embedding and the agent's own last text and codes.

    user [B, T, D] x user_weight  +  text [B, T, D]  +  sum over Q of the code embeddings

The code rows start at zero, so that a text LLM begins as the LLM it was (SALM-Duplex 2025, channel fusion by sum).
Boundary: embeddings of codes and the sum; the text embedding is the LLM's own and comes in ready.
"""

import torch
from torch import Tensor, nn

from nemo_duplex.tokens import CodeTokens


class Fusion(nn.Module):
    """Sums the streams of one frame.

    Args:
        codebooks: Q.
        tokens: ids of one codebook; one table holds Q vocabularies one after the other.
        width: D.
        user_weight: factor of the user's embedding.
    """

    def __init__(self, codebooks: int, tokens: CodeTokens, width: int, user_weight: float):
        super().__init__()
        self.user_weight = user_weight
        self.codes = nn.Embedding(codebooks * tokens.vocabulary, width)
        nn.init.zeros_(self.codes.weight)
        self.register_buffer("offsets", torch.arange(codebooks) * tokens.vocabulary, persistent=False)

    def forward(self, user: Tensor, text: Tensor, codes: Tensor) -> Tensor:
        """user [B, T, D], text [B, T, D], code ids [B, T, Q] -> [B, T, D]."""
        return user * self.user_weight + text + self.codes(codes + self.offsets).sum(dim=2)

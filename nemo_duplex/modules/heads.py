"""Code heads: Q parallel predictions of the codes of one frame from the backbone's hidden state.

    hidden [B, T, D] -> linear -> [B, T, Q, C]        no depth transformer: FSQ codebooks are independent

Boundary: the text head is the LLM's output layer and lives in the backbone.
"""

from torch import Tensor, nn

from nemo_duplex.tokens import CodeTokens


class CodeHeads(nn.Module):
    """One linear layer that holds the Q heads."""

    def __init__(self, width: int, codebooks: int, tokens: CodeTokens):
        super().__init__()
        self.codebooks = codebooks
        self.linear = nn.Linear(width, codebooks * tokens.vocabulary, bias=False)

    def forward(self, hidden: Tensor) -> Tensor:
        """[B, T, D] -> [B, T, Q, C]."""
        return self.linear(hidden).unflatten(-1, (self.codebooks, -1))

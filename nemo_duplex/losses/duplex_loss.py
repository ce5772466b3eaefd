"""The duplex loss: cross-entropy of the text and of each codebook, over valid frames only.

    loss = (3 * text + 1 * sum of Q codebooks) / (3 + Q)      text 3/7 and each of four codebooks 1/7 (SALM-Duplex)

Silence and PAD are trained on (a duplex model must learn to be silent), padding after a session's end is not.
Text tokens may be weighted by class (PAD, BOS, EOS, other); the text loss is then the weighted mean.
Boundary: logits and labels in, scalars out.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nemo_duplex.config import LossConfig
from nemo_duplex.streams import DuplexLogits, DuplexStreams
from nemo_duplex.tokens import TextTokens

IGNORED = -100  # label of a frame that is not valid


@dataclass
class DuplexLossParts:
    """total: the scalar to minimise; text: weighted mean over frames; codes: [Q], mean over frames of each codebook."""

    total: Tensor
    text: Tensor
    codes: Tensor


class DuplexLoss(nn.Module):
    """Weights of the streams and of the classes of text tokens come from LossConfig."""

    def __init__(self, config: LossConfig, tokens: TextTokens):
        super().__init__()
        self.config = config
        self.tokens = tokens

    def forward(self, logits: DuplexLogits, streams: DuplexStreams) -> DuplexLossParts:
        """Means over the frames where streams.mask is True.

        Raises:
            ValueError: when no frame of the batch is valid.
        """
        mask = streams.mask
        if not mask.any():
            raise ValueError("no valid frame in the batch: every session has length 0")
        labels = streams.text_label
        weights = self.text_weights(labels) * mask
        text = F.cross_entropy(logits.text.float().transpose(1, 2), labels, reduction="none")
        text = (text * weights).sum() / weights.sum()
        wanted = streams.codes_label.masked_fill(~mask[..., None], IGNORED)
        codes = F.cross_entropy(
            logits.codes.float().flatten(0, 2), wanted.flatten(), ignore_index=IGNORED, reduction="none"
        )
        codes = codes.view(wanted.shape).sum(dim=(0, 1)) / mask.sum()
        total = self.config.text * text + self.config.codebook * codes.sum()
        return DuplexLossParts(total / (self.config.text + self.config.codebook * codes.numel()), text, codes)

    def text_weights(self, labels: Tensor) -> Tensor:
        """The weight of each text label, by its class."""
        weights = torch.full(labels.shape, self.config.token_weight, device=labels.device)
        for token, weight in (
            (self.tokens.pad, self.config.pad_weight),
            (self.tokens.bos, self.config.bos_weight),
            (self.tokens.eos, self.config.eos_weight),
        ):
            weights = weights.masked_fill(labels == token, weight)
        return weights

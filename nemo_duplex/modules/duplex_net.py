"""DuplexNet: the whole network, for many frames (training) or one (live). Both flows meet here.

    audio, text_input, codes_input --- perception + embeddings -> fusion -> backbone -> heads --> DuplexLogits

    forward  T frames at once, the agent's inputs known (teacher forcing); with a state it continues a session
    step     `frames_per_step` frames from the samples of the user, the agent's inputs being its own last choices

`step` runs the same modules as `forward`, so a streamed session equals the offline one.
Boundary: no loss, no codec, no tokenizer; ids in, logits out. The choice of ids is a function that `step` is given.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nemo_duplex.clock import FrameClock
from nemo_duplex.config import ModelConfig
from nemo_duplex.modules.backbone import Backbone, BackboneState
from nemo_duplex.modules.fusion import Fusion
from nemo_duplex.modules.heads import CodeHeads
from nemo_duplex.modules.perception import Perception, PerceptionState
from nemo_duplex.state import State, rows_on
from nemo_duplex.streams import DuplexLogits
from nemo_duplex.tokens import CodeTokens, TextTokens

Choice = Callable[[DuplexLogits], tuple[Tensor, Tensor]]


@dataclass
class DuplexState(State):
    """State of B sessions.

    Attributes:
        perception, backbone: states of the two modules with memory.
        text: [B] int64, the agent's text id of the last frame.
        codes: [B, Q] int64, the agent's codes of the last frame (delayed, as the net sees them).
    """

    perception: PerceptionState = rows_on(0)
    backbone: BackboneState = rows_on(0)
    text: Tensor = rows_on(0)
    codes: Tensor = rows_on(0)


class DuplexNet(nn.Module):
    """SALM-Duplex's network (Hu et al., Interspeech 2025).

    Args:
        config: the model section of the configuration.
        clock: the frame clock.
        text_tokens: control ids of the text; `vocabulary` is V.
        vocabulary: V, number of text ids.
        codebooks: Q of the codec.
        code_tokens: ids of one codebook.
    """

    def __init__(
        self,
        config: ModelConfig,
        clock: FrameClock,
        text_tokens: TextTokens,
        vocabulary: int,
        codebooks: int,
        code_tokens: CodeTokens,
    ):
        super().__init__()
        width = config.backbone.width
        self.text_tokens = text_tokens
        self.code_tokens = code_tokens
        self.codebooks = codebooks
        self.perception = Perception(config.perception, clock, width)
        self.backbone = Backbone(config.backbone, vocabulary)
        self.fusion = Fusion(codebooks, code_tokens, width, config.fusion.user_weight)
        self.heads = CodeHeads(width, codebooks, code_tokens)
        self._match_scales()

    @torch.no_grad()
    def _match_scales(self) -> None:
        """Starts the user's embedding at the scale of the text embedding: a louder one would drown the agent's own past."""
        projection = self.perception.projection
        text = self.backbone.embed_text(torch.arange(self.backbone.gpt.vocab_size)[None])
        torch.nn.init.normal_(projection.weight, std=float(text.std()) / projection.in_features**0.5)
        torch.nn.init.zeros_(projection.bias)

    @property
    def frames_per_step(self) -> int:
        """Frames that one step consumes: 1 for look-ahead 0, 2 for the paper's [70, 1]."""
        return self.perception.frames_per_step

    def initial_state(self, batch: int) -> DuplexState:
        """The state of `batch` fresh sessions: silence before, PAD as the last text, unk as the last codes."""
        device = self.heads.linear.weight.device
        text = torch.full((batch,), self.text_tokens.pad, device=device)
        codes = torch.full((batch, self.codebooks), self.code_tokens.unk, device=device)
        return DuplexState(self.perception.initial_state(batch), self.backbone.initial_state(batch), text, codes)

    def forward(self, audio: Tensor, text: Tensor, codes: Tensor, state: DuplexState | None = None) -> DuplexLogits:
        """Logits of T frames from the user's audio [B, T*hop] and the agent's inputs: text [B, T], codes [B, T, Q].

        With a state the frames continue from it, and it is advanced in place.
        """
        user = self.perception(audio, state.perception if state else None)
        return self._predict(user, text, codes, state.backbone if state else None)

    def _predict(self, user: Tensor, text: Tensor, codes: Tensor, state: BackboneState | None) -> DuplexLogits:
        x = self.fusion(user, self.backbone.embed_text(text), codes)
        hidden = self.backbone(x, state)
        return DuplexLogits(self.backbone.text_logits(hidden), self.heads(hidden))

    def step(self, audio: Tensor, state: DuplexState, choose: Choice) -> list[tuple[Tensor, Tensor]]:
        """Advances every row by `frames_per_step` frames from the user's samples [B, frames_per_step*hop].

        Args:
            choose: maps the logits of one frame (T = 1) to ids: text [B] and codes [B, Q].

        Returns:
            the chosen (text, codes) of each frame; the state is advanced in place.
        """
        user = self.perception(audio, state.perception)
        chosen = []
        for frame in user.split(1, dim=1):
            logits = self._predict(frame, state.text[:, None], state.codes[:, None], state.backbone)
            state.text, state.codes = choose(logits)
            chosen.append((state.text, state.codes))
        return chosen

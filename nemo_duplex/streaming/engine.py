"""DuplexEngine: live sessions, frame in, frame out, N rows on one clock.

    user samples [B, 1280] -> DuplexNet.step -> sampling -> codes of the frame before -> codec.step -> samples [B, 1764]

Rows join, leave and are reset independently; a row that is out is computed and its result dropped, so every step costs
the same. The agent's audio lags its text by `frame_delay` frames (the code delay), of which the first are silent.
Boundary: no network, no clock of its own: the caller brings 80 ms of audio for every row and gets 80 ms back.
"""

import torch
from torch import Tensor

from nemo_duplex.clock import FrameClock
from nemo_duplex.config import SamplingConfig
from nemo_duplex.modules.codec import Codec
from nemo_duplex.modules.duplex_net import DuplexNet
from nemo_duplex.modules.sampling import check_sampling, row_generator, sample
from nemo_duplex.streams import AgentFrame, DuplexLogits


class DuplexEngine:
    """Steps a batch of sessions.

    Args:
        net: the network, moved to its device; put in evaluation mode here.
        codec: the agent's codec, on the same device.
        clock: the model's clock.
        rows: B, the number of sessions that can be live at once.
        sampling: how ids are chosen.
        frame_delay: frames by which the codes lag the text (the model's `code_delay`).
    """

    def __init__(
        self, net: DuplexNet, codec: Codec, clock: FrameClock, rows: int, sampling: SamplingConfig, frame_delay: int = 1
    ):
        if rows < 1:
            raise ValueError(f"rows must be at least 1, got {rows}")
        check_sampling(sampling)
        self.net = net.eval()
        self.codec = codec
        self.clock = clock
        self.rows = rows
        self.sampling = sampling
        self.frame_delay = frame_delay
        self.active = [False] * rows
        self._silence = codec.silence_codes()
        self._generators = [row_generator(sampling.seed) for _ in range(rows)]
        with torch.inference_mode():
            self._net_state = net.initial_state(rows)
            self._codec_state = codec.initial_state(rows)

    @classmethod
    def from_model(cls, model, rows: int = 1, sampling: SamplingConfig | None = None) -> "DuplexEngine":
        """The engine of a DuplexModel; sampling as in its config unless given."""
        config = model.config
        return cls(model.net, model.codec, model.clock, rows, sampling or config.sampling, config.code_delay)

    @property
    def samples_per_step(self) -> int:
        """User samples that each row brings to a step."""
        return self.net.frames_per_step * self.clock.user_hop

    @property
    def state_bytes(self) -> int:
        """Bytes of all that the rows carry from step to step."""
        return self._net_state.nbytes() + self._codec_state.nbytes()

    @property
    def device(self) -> torch.device:
        return self._silence.device

    def join(self, row: int, seed: int | None = None) -> None:
        """Starts a fresh session in a free row.

        Raises:
            ValueError: when there is no such row, or it is taken.
        """
        self._check_row(row)
        if self.active[row]:
            raise ValueError(f"row {row} is taken: leave({row}) first, or join another row")
        self.reset([row], seed)
        self.active[row] = True

    def leave(self, row: int) -> None:
        """Ends the session of a row; the others do not notice."""
        self._check_row(row)
        self.active[row] = False

    def reset(self, rows: list[int], seed: int | None = None) -> None:
        """Makes the given rows fresh, live or not."""
        for row in rows:
            self._check_row(row)
            self._generators[row] = row_generator(self.sampling.seed if seed is None else seed)
        with torch.inference_mode():
            self._net_state.copy_rows(rows, self.net.initial_state(self.rows))
            self._codec_state.copy_rows(rows, self.codec.initial_state(self.rows))

    def _check_row(self, row: int) -> None:
        if not 0 <= row < self.rows:
            raise ValueError(f"row {row}: the engine has rows 0 to {self.rows - 1}")

    @torch.inference_mode()
    def step(self, audio: Tensor) -> list[AgentFrame]:
        """Advances all rows by one step.

        Args:
            audio: [B, samples_per_step] float in [-1, 1] at the user's rate.

        Returns:
            one AgentFrame for each frame of the step (one, or two with look-ahead 1). Rows that are out get PAD and zeros.

        Raises:
            ValueError: for another shape, or samples that are not finite, naming the row.
        """
        self._check_audio(audio)
        chosen = self.net.step(audio.to(self.device), self._net_state, self._choose)
        return [self._frame(text, codes) for text, codes in chosen]

    def _check_audio(self, audio: Tensor) -> None:
        expected = (self.rows, self.samples_per_step)
        if tuple(audio.shape) != expected or not audio.is_floating_point():
            raise ValueError(
                f"expected float samples {list(expected)} (rows, samples), got {audio.dtype} {list(audio.shape)}"
            )
        bad = ~torch.isfinite(audio).all(dim=1)
        if bad.any():
            raise ValueError(f"row {int(bad.nonzero()[0])} has samples that are not finite: send silence instead")

    def _choose(self, logits: DuplexLogits) -> tuple[Tensor, Tensor]:
        """Ids of one frame: text [B] and codes [B, Q]."""
        chosen = self.sampling
        text = sample(logits.text, chosen.text_temperature, chosen.top_k, self._generators)[:, 0]
        return text, sample(logits.codes[:, 0], chosen.codes_temperature, chosen.top_k, self._generators)

    def _frame(self, text: Tensor, codes: Tensor) -> AgentFrame:
        """Decodes one frame of codes; a frame with a control code (unk of the delay, bos, eos) is silence."""
        control = (codes >= self.codec.codebook_size).any(dim=1, keepdim=True)
        audio, self._codec_state = self.codec.step(torch.where(control, self._silence, codes), self._codec_state)
        out = torch.tensor([not live for live in self.active], device=self.device)
        return AgentFrame(
            text.masked_fill(out, self.net.text_tokens.pad),
            codes.masked_fill(out[:, None], self.net.code_tokens.pad),
            audio.masked_fill(out[:, None], 0.0),
        )

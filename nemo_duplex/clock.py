"""The one clock: the only place where seconds, samples and frames meet.

    time   0 ms        80 ms       160 ms
           |  frame 0   |  frame 1   |  frame 2 ...
    user   1280 samples 1280 samples            at 16,000 Hz
    agent  1764 samples 1764 samples            at 22,050 Hz

One rounding rule: an instant belongs to the frame that contains it (floor), and a length covers every frame that it
touches (ceil). Both allow a microsecond, so that 0.64 s written as a float is frame 8 and not frame 7.
Boundary: pure arithmetic on Python numbers; no audio, no tensors.
"""

import math
from dataclasses import dataclass

TOLERANCE_S = 1e-6


@dataclass(frozen=True)
class FrameClock:
    """The frame rate and the two sample rates of a session.

    Args:
        frame_ms: length of one frame in milliseconds.
        user_sample_rate: rate of the user's audio in Hz.
        agent_sample_rate: rate of the agent's audio in Hz.

    Raises:
        ValueError: when a frame does not hold a whole number of samples of either stream.
    """

    frame_ms: int = 80
    user_sample_rate: int = 16000
    agent_sample_rate: int = 22050

    def __post_init__(self):
        for name, rate in (("user", self.user_sample_rate), ("agent", self.agent_sample_rate)):
            if rate <= 0 or self.frame_ms <= 0 or rate * self.frame_ms % 1000:
                raise ValueError(
                    f"{name}_sample_rate {rate} Hz and frame_ms {self.frame_ms} give {rate * self.frame_ms / 1000:g} samples "
                    "in a frame; expected a positive whole number: choose another rate or frame length"
                )

    @property
    def user_hop(self) -> int:
        """User samples in one frame."""
        return self.user_sample_rate * self.frame_ms // 1000

    @property
    def agent_hop(self) -> int:
        """Agent samples in one frame."""
        return self.agent_sample_rate * self.frame_ms // 1000

    @property
    def frame_s(self) -> float:
        """Length of one frame in seconds."""
        return self.frame_ms / 1000

    def frame_at(self, seconds: float) -> int:
        """Index of the frame that contains an instant."""
        return math.floor((seconds + TOLERANCE_S) / self.frame_s)

    def frames_in(self, seconds: float) -> int:
        """Number of frames that a length touches."""
        return math.ceil((seconds - TOLERANCE_S) / self.frame_s)

    def seconds(self, frames: float) -> float:
        """Start of a frame, or length of that many frames, in seconds."""
        return frames * self.frame_ms / 1000

    def user_frames(self, samples: int) -> int:
        """Number of frames that this many user samples touch."""
        return -(-samples // self.user_hop)

    def agent_frames(self, samples: int) -> int:
        """Number of frames that this many agent samples touch."""
        return -(-samples // self.agent_hop)

"""An engine that speaks by a script, and the cuts of the sessions that it knows."""

from dataclasses import dataclass, field

import numpy as np
import soundfile
import torch
from lhotse import MonoCut, SupervisionSegment

from nemo_duplex.clock import FrameClock
from nemo_duplex.data.manifest import recording_of
from nemo_duplex.streaming.evaluation import stream_sessions
from nemo_duplex.streams import AgentFrame
from nemo_duplex.tokens import TextTokens

CLOCK = FrameClock()
TOKENS = TextTokens(pad=0, bos=1, eos=2)
WORDS = {3: "it", 4: "is", 5: "paris", 6: "rome", 7: "hello"}


class Words:
    """A tokenizer of one word a token."""

    tokens = TOKENS

    def decode(self, ids):
        return " ".join(WORDS[token] for token in ids if token in WORDS)


@dataclass
class Plan:
    """What happens in one session, in frames: the user's turns, the reference, and what the scripted agent does."""

    frames: int
    user: list[tuple[int, int]]
    reference: list[tuple[int, int, str]]
    agent: list[tuple[int, int | None, list[int]]] = field(default_factory=list)

    def text_at(self, frame):
        for start, end, ids in self.agent:
            if frame == start:
                return TOKENS.bos
            if frame == end:
                return TOKENS.eos
            if start < frame <= start + len(ids):
                return ids[frame - start - 1]
        return TOKENS.pad

    def speaks_at(self, frame):
        return any(start <= frame and (end is None or frame < end) for start, end, _ in self.agent)


# answers 8 frames (0.64 s) after the first user turn; yields 7 frames (0.56 s) after a barge-in; answers that 2 s late
BARGED = Plan(
    frames=130,
    user=[(5, 20), (50, 65)],
    reference=[(28, 58, "It is Rome."), (73, 90, "It is Paris.")],
    agent=[(28, 57, [3, 4, 6]), (90, 110, [3, 4, 5])],
)
# says the first answer as in the reference, to its end, and another one than in the reference the second time
PLAIN = Plan(
    frames=100,
    user=[(5, 20), (60, 70)],
    reference=[(28, 50, "It is Paris!"), (78, 95, "Hello.")],
    agent=[(26, 46, [3, 4, 5]), (80, None, [3, 4, 6])],
)
# says nothing at all; the user also says "mhm" into the reference's answer, which expects none
MUTE = Plan(frames=61, user=[(2, 10), (22, 25)], reference=[(15, 40, "Hello.")])
PLANS = [PLAIN, BARGED, MUTE]


class ScriptedEngine:
    """Follows DuplexEngine's contract and speaks as planned; the first sample that a row hears says by which plan."""

    state_bytes = 4321
    frame_delay = 1

    def __init__(self, rows, frames_per_step=1):
        self.rows, self.frames_per_step = rows, frames_per_step
        self.samples_per_step = frames_per_step * CLOCK.user_hop
        self.frame = [0] * rows
        self.plan = [None] * rows
        self.active = [False] * rows

    def join(self, row):
        assert not self.active[row], f"row {row} is taken"
        self.frame[row], self.plan[row], self.active[row] = 0, None, True

    def leave(self, row):
        self.active[row] = False

    def step(self, audio):
        assert audio.shape == (self.rows, self.samples_per_step)
        for row in range(self.rows):
            if self.active[row] and self.frame[row] == 0:
                self.plan[row] = round(float(audio[row, 0]) * 100) - 1
        return [self._frame() for _ in range(self.frames_per_step)]

    def _frame(self):
        rows = [self._row(row) if self.active[row] else (TOKENS.pad, [0] * 4, False) for row in range(self.rows)]
        text, codes, loud = zip(*rows, strict=True)
        tone = 0.2 * torch.sin(torch.arange(CLOCK.agent_hop) * 0.3)
        self.frame = [frame + 1 for frame in self.frame]
        return AgentFrame(torch.tensor(text), torch.tensor(codes), torch.stack([tone * on for on in loud]))

    def _row(self, row):
        plan, frame = PLANS[self.plan[row]], self.frame[row]
        return plan.text_at(frame), [self.plan[row] + 1, frame, 0, 0], plan.speaks_at(frame - 1)


def cut_of(index, folder, **changes):
    """The cut of a plan; the first sample says which plan it is."""
    plan = PLANS[index]
    samples = np.zeros(plan.frames * CLOCK.user_hop - 5, np.float32)
    samples[0] = (index + 1) / 100
    path = folder / f"session-{index}.wav"
    soundfile.write(path, samples, CLOCK.user_sample_rate, subtype="FLOAT")
    recording = recording_of(path, path.stem, CLOCK.user_sample_rate, len(samples))
    turns = [("user", start, end, "...") for start, end in plan.user] + [("agent", *turn) for turn in plan.reference]
    supervisions = [
        SupervisionSegment(
            f"{index}-{n}", path.stem, CLOCK.seconds(start), CLOCK.seconds(end - start), text=text, speaker=who
        )
        for n, (who, start, end, text) in enumerate(turns)
    ]
    values = {"id": path.stem, "start": 0, "duration": recording.duration, "channel": 0, "recording": recording}
    return MonoCut(**(values | {"supervisions": supervisions} | changes))


def stream(sessions, rows=2, frames_per_step=1):
    return stream_sessions(ScriptedEngine(rows, frames_per_step), CLOCK, sessions, Words())

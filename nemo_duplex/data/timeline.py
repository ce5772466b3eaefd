"""Turns with durations -> turns with times: two synchronized streams by the paper's construction.

    user   ....Q1Q1Q1..................Q2Q2Q2Q2.................
    agent  ...............A1A1A1A1A1A1A1A1..........A2A2A2A2A2..
               lead    gap             |------|  barge-in: the user starts while the agent speaks, and the agent stops
                                       overlap   `barge_in_overlap_s` after that; the rest of its turn is never said
    where one party speaks the other's stream is silent, but for the overlap

Agent turns start on frame boundaries; the end is a whole number of frames. Pure: the same seed gives the same timeline.
Boundary: seconds and frames; no text, no audio.
"""

import random
from dataclasses import dataclass, field

from nemo_duplex.clock import FrameClock
from nemo_duplex.config import TimelineConfig


@dataclass(frozen=True)
class SpokenTurn:
    """A turn that has a length but no place yet. speaker: user | agent."""

    speaker: str
    duration: float


@dataclass(frozen=True)
class PlacedTurn:
    """A turn on the clock, in seconds. `interrupted`: a barge-in ended it before its own end."""

    speaker: str
    start: float
    duration: float
    interrupted: bool = False

    @property
    def end(self) -> float:
        return self.start + self.duration


@dataclass(frozen=True)
class BargeIn:
    """A user who starts while the agent speaks, and the moment at which the agent has to be silent, in seconds."""

    user_onset: float
    agent_stop: float
    kind: str = "barge_in"


@dataclass
class Timeline:
    """The placed turns of one session, in the order of the dialogue; its barge-ins; its length in frames."""

    turns: list[PlacedTurn] = field(default_factory=list)
    events: list[BargeIn] = field(default_factory=list)
    frames: int = 0


def place(turns: list[SpokenTurn], config: TimelineConfig, clock: FrameClock, seed: int | str) -> Timeline:
    """Places turns that alternate, the user's first, on the clock.

    Args:
        turns: who speaks for how long.
        config: gaps, in seconds, and what a barge-in leaves of the agent's turn.
        clock: the frame grid of the agent's turns.
        seed: of the only two random choices: the wait before a user turn, and whether and when a user barges in.
    """
    _check(turns, config)
    rng = random.Random(seed)  # noqa: S311 (data, not secrets)
    timeline = Timeline()
    onset = _wait(config.lead_s, config, rng)
    for index, turn in enumerate(turns):
        if turn.speaker == "user":
            timeline.turns.append(PlacedTurn("user", onset, turn.duration))
            continue
        start = clock.seconds(_response_frame(timeline.turns, config, clock))
        barge_in = _barge_in(start, turn.duration, config, rng) if index + 1 < len(turns) else None
        if barge_in:
            timeline.turns.append(PlacedTurn("agent", start, barge_in.agent_stop - start, interrupted=True))
            timeline.events.append(barge_in)
            onset = barge_in.user_onset
        else:
            timeline.turns.append(PlacedTurn("agent", start, turn.duration))
            onset = _wait(start + turn.duration + config.user_gap_s, config, rng)
    timeline.frames = clock.frames_in(max(turn.end for turn in timeline.turns) + config.trailing_silence_s)
    return timeline


def _check(turns: list[SpokenTurn], config: TimelineConfig) -> None:
    for index, turn in enumerate(turns):
        if turn.speaker != ("user", "agent")[index % 2] or turn.duration <= 0:
            raise ValueError(
                f"turn {index} is {turn.duration:g} s of {turn.speaker!r}; expected turns of positive length that "
                "alternate, the user's first"
            )
    if not turns:
        raise ValueError("a session needs at least one turn, got none")
    if not 0 <= config.barge_in_probability <= 1:
        raise ValueError(f"barge_in_probability {config.barge_in_probability}: expected 0 to 1")


def _response_frame(placed: list[PlacedTurn], config: TimelineConfig, clock: FrameClock) -> int:
    """First frame on the grid after the gap; the agent's former turn ends at least one frame (its EOS) before it."""
    frame = clock.frames_in(placed[-1].end + config.response_gap_s)
    return max(frame, clock.frames_in(placed[-2].end) + 1) if len(placed) > 1 else frame


def _wait(earliest: float, config: TimelineConfig, rng: random.Random) -> float:
    """Onset of a user who waits up to `user_gap_jitter_s` longer than the shortest gap."""
    return earliest + rng.uniform(0.0, config.user_gap_jitter_s)


def _barge_in(start: float, duration: float, config: TimelineConfig, rng: random.Random) -> BargeIn | None:
    """A random barge-in into an agent's turn, or None by chance or when the turn is too short for one.

    The user starts at least `barge_in_after_s` after the agent, and so early that the cut takes away at least half as
    much as the overlap that it leaves: a turn that is about to end anyway is not interrupted.
    """
    earliest = start + config.barge_in_after_s
    latest = start + duration - 1.5 * config.barge_in_overlap_s
    if latest < earliest or rng.random() >= config.barge_in_probability:
        return None
    onset = rng.uniform(earliest, latest)
    return BargeIn(onset, onset + config.barge_in_overlap_s)


def activity(turns: list[PlacedTurn], frames: int, clock: FrameClock) -> dict[str, list[int]]:
    """Who speaks at each frame, as 0 and 1: {"user": [T], "agent": [T]}; a frame counts when speech touches it."""
    rows = {"user": [0] * frames, "agent": [0] * frames}
    for turn in turns:
        for frame in range(clock.frame_at(turn.start), clock.frames_in(turn.end)):
            rows[turn.speaker][frame] = 1
    return rows

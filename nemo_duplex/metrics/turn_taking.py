"""Turn-taking, barge-in and false alarms, over all turns of all sessions.

    user    |---- u0 ----|                 |-- u1 --|
    agent                   |---- a0 ---------|        |---- a1 ----|
                         <->               <-->     <->
                       latency    barge-in latency  latency

Definitions (times in seconds; every bound is inclusive within a microsecond):

  turn-taking   NVIDIA's turn metrics (arXiv 2609.15759): an agent turn is on time when it starts from 1 s before to
                1.5 s after the end of a user turn. precision = agent turns on time / agent turns; recall = user turns
                answered on time / user turns that expect an answer; latency = agent start - user end over the answered
                turns (negative when the agent was early). One agent turn answers at most one user turn: in order of
                their ends, each user turn takes the first free agent turn in its window. Precision has no such limit,
                as in the source: two starts in one window are both on time.
  barge-in      SALM-Duplex (arXiv 2505.15670): a user turn whose onset falls inside a turn that the agent really
                spoke. success = the agent stops within 1.5 s of the onset; latency = stop - onset over the successes.
                An agent that would have ended anyway cannot be told from one that yields: it counts as a success. An
                agent that never stops (end None: it speaks to the session's end) fails; one that begins its next turn
                where the former ends (a BOS without an EOS before it) has not stopped there.
  false alarm   SALM-Duplex: the agent starts while the user talks, and the user goes on for more than 0.1 s.
                rate = false alarms / user turns; it can pass 1 when the agent starts several times in one user turn.

A start between 1 s and 0.1 s before the user's end is on time and a false alarm: each source counts it its own way.
A user turn that expects no answer (a backchannel) opens no window and is no barge-in; a false alarm it can be.
Counts and latencies are pooled over sessions, never averages of averages; a ratio over nothing is None.
Boundary: plain (start, end) pairs in; where the turns come from (tokens, energy) is the caller's choice.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from statistics import fmean, median

from nemo_duplex.clock import TOLERANCE_S

EARLY_S = 1.0
LATE_S = 1.5
STOP_WITHIN_S = 1.5
TALK_OVER_S = 0.1

Turn = tuple[float, float | None]
Turns = Sequence[Turn]
Flags = Sequence[bool]


def ratio(part: float, whole: float) -> float | None:
    """part / whole, or None when there is nothing to divide by."""
    return part / whole if whole else None


def mean(values: Sequence[float]) -> float | None:
    """The mean, or None of nothing."""
    return fmean(values) if values else None


@dataclass(frozen=True)
class BargeIn:
    """One barge-in: user turn and agent turn by index, the user's onset, and when the agent stopped (None: never)."""

    user: int
    agent: int
    onset: float
    stop: float | None

    @property
    def latency(self) -> float | None:
        """Seconds from the onset to the stop."""
        return None if self.stop is None else self.stop - self.onset

    @property
    def success(self) -> bool:
        """Whether the agent stopped in time."""
        return self.latency is not None and self.latency <= STOP_WITHIN_S + TOLERANCE_S


def on_time(start: float, user_end: float) -> bool:
    """Whether an agent turn that starts at `start` answers a user turn that ends at `user_end`."""
    return -EARLY_S - TOLERANCE_S <= start - user_end <= LATE_S + TOLERANCE_S


def answers(user_turns: Turns, agent_turns: Turns, expected: Flags | None = None) -> list[int | None]:
    """For each user turn the index of the agent turn that answers it, or None."""
    expected = _expected(user_turns, expected)
    free = sorted(range(len(agent_turns)), key=lambda agent: agent_turns[agent][0])
    found: list[int | None] = [None] * len(user_turns)
    for user in sorted(range(len(user_turns)), key=lambda user: user_turns[user][1]):
        match = next((agent for agent in free if on_time(agent_turns[agent][0], user_turns[user][1])), None)
        if expected[user] and match is not None:
            found[user] = match
            free.remove(match)
    return found


def barge_ins(user_turns: Turns, agent_turns: Turns, expected: Flags | None = None) -> list[BargeIn]:
    """The user turns that begin inside an agent turn; not those that begin as the agent starts or stops."""
    found = []
    for user, ((onset, _), wanted) in enumerate(zip(user_turns, _expected(user_turns, expected), strict=True)):
        for agent, (start, stop) in enumerate(agent_turns):
            inside = start + TOLERANCE_S < onset and (stop is None or onset + TOLERANCE_S < stop)
            if wanted and inside:
                found.append(BargeIn(user, agent, onset, _silent_from(agent_turns, stop)))
    return found


def _silent_from(agent_turns: Turns, stop: float | None) -> float | None:
    """`stop`, or the end of the turns that follow it without a gap."""
    for start, end in sorted(agent_turns, key=lambda turn: turn[0]):
        if stop is not None and abs(start - stop) <= TOLERANCE_S:
            stop = end
    return stop


def false_alarms(user_turns: Turns, agent_turns: Turns) -> list[int]:
    """Indices of the agent turns that start while the user talks, more than 0.1 s before the user's end."""
    return [
        agent
        for agent, (start, _) in enumerate(agent_turns)
        if any(begin - TOLERANCE_S <= start < end - TALK_OVER_S - TOLERANCE_S for begin, end in user_turns)
    ]


@dataclass
class TurnScore:
    """Counts of one session; `+` pools sessions. `expected`: user turns that expect an answer."""

    user_turns: int = 0
    expected: int = 0
    agent_turns: int = 0
    on_time: int = 0
    latencies: list[float] = field(default_factory=list)
    barge_ins: int = 0
    stop_latencies: list[float] = field(default_factory=list)
    false_alarms: int = 0

    def __add__(self, other: "TurnScore") -> "TurnScore":
        return TurnScore(*(getattr(self, item.name) + getattr(other, item.name) for item in fields(self)))

    def turn_taking(self) -> dict[str, float | int | None]:
        """precision, recall, latency_s (the mean), latency_median_s and count (user turns that expect an answer)."""
        return {
            "precision": ratio(self.on_time, self.agent_turns),
            "recall": ratio(len(self.latencies), self.expected),
            "latency_s": mean(self.latencies),
            "latency_median_s": median(self.latencies) if self.latencies else None,
            "count": self.expected,
        }

    def barge_in(self) -> dict[str, float | int | None]:
        """success, latency_s (the mean), latency_median_s, false_alarm_rate and count (barge-ins)."""
        return {
            "success": ratio(len(self.stop_latencies), self.barge_ins),
            "latency_s": mean(self.stop_latencies),
            "latency_median_s": median(self.stop_latencies) if self.stop_latencies else None,
            "false_alarm_rate": ratio(self.false_alarms, self.user_turns),
            "count": self.barge_ins,
        }


def score(user_turns: Turns, agent_turns: Turns, expected: Flags | None = None) -> TurnScore:
    """Scores one session.

    Args:
        user_turns: (start, end) of each user turn.
        agent_turns: (start, end) of each turn that the agent spoke; end None when it spoke to the session's end.
        expected: for each user turn, whether it expects an answer; all do when not given.
    """
    expected = _expected(user_turns, expected)
    matched = enumerate(answers(user_turns, agent_turns, expected))
    found = barge_ins(user_turns, agent_turns, expected)
    ends = [end for (_, end), wanted in zip(user_turns, expected, strict=True) if wanted]
    return TurnScore(
        user_turns=len(user_turns),
        expected=sum(expected),
        agent_turns=len(agent_turns),
        on_time=sum(any(on_time(start, end) for end in ends) for start, _ in agent_turns),
        latencies=[agent_turns[agent][0] - user_turns[user][1] for user, agent in matched if agent is not None],
        barge_ins=len(found),
        stop_latencies=[item.latency for item in found if item.success],
        false_alarms=len(false_alarms(user_turns, agent_turns)),
    )


def _expected(user_turns: Turns, expected: Flags | None) -> list[bool]:
    values = [True] * len(user_turns) if expected is None else list(expected)
    assert len(values) == len(user_turns), f"expected {len(user_turns)} flags, got {len(values)}"
    return values

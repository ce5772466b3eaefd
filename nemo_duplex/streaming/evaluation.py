"""Evaluation as live sessions: held-out user audio through the engine, one step at a time, then scored.

    cut -> HeldOut (user audio, turns, reference answers)
             | user samples, one step at a time, `rows` sessions beside each other
             v
        DuplexEngine.step -> Streamed (text ids [T], codes [T, Q], audio as heard, turns)
             | metrics/: turn_taking, speech
             v
        SessionScore  -- pooled over sessions by evaluation_report.py

Two times are reported. A turn of the *text* starts at its BOS frame and ends at its EOS frame. *As heard*, the audio of
a step begins when all user samples of the step have arrived: one step later (processing, `frame_ms`, comes on top).
Boundary: cuts and an engine in, scores out; the model is restored and files are written elsewhere.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice, zip_longest
from pathlib import Path
from time import perf_counter

import numpy as np
import torch
from torch import Tensor

from nemo_duplex.clock import FrameClock
from nemo_duplex.data.dialogue import ROLES
from nemo_duplex.data.manifest import check_recording
from nemo_duplex.data.text_stream import HeardTurn, turns_in
from nemo_duplex.metrics.speech import audible_turns
from nemo_duplex.metrics.turn_taking import BargeIn, Turn, TurnScore, answers, barge_ins, score


@dataclass
class HeldOut:
    """One session to evaluate on.

    Attributes:
        user_audio: [S] float32.
        user_turns, reference_turns: (start, end) of the user's turns and of the agent's in the reference.
        answers: for each user turn the reference's answer; None when it gives none before the next user turn.
        whole: for each user turn whether that answer is said to its end (a barge-in leaves only the start of it).
    """

    id: str
    user_audio: np.ndarray
    user_turns: list[Turn]
    reference_turns: list[Turn]
    answers: list[str | None]
    whole: list[bool]

    @property
    def expected(self) -> list[bool]:
        """For each user turn whether it expects an answer; all do when the reference has no agent at all."""
        return [answer is not None or not self.reference_turns for answer in self.answers]


@dataclass
class Streamed:
    """What the engine gave for one session: text [T], codes [T, Q], audio [S] as heard, turns and the text of each."""

    held_out: HeldOut
    text: Tensor
    codes: Tensor
    audio: np.ndarray
    agent_turns: list[Turn]
    texts: list[str]


@dataclass
class Pass:
    """All sessions of one pass, its pace (seconds of each step), and the rows, step and code delay of the engine."""

    rows: int
    frames_per_step: int
    frame_delay: int
    sessions: list[Streamed] = field(default_factory=list)
    step_s: list[float] = field(default_factory=list)

    @property
    def lag_frames(self) -> int:
        """Frames from the text of a frame to its sound as heard: the delay of the codes and the step itself."""
        return self.frames_per_step + self.frame_delay


@dataclass
class SessionScore:
    """Scores of one session: turns of the text, turns as heard, barge-ins and (reference, agent) answers."""

    turns: TurnScore
    audible: TurnScore
    barge_ins: list[BargeIn]
    pairs: list[tuple[str, str]]


def read_held_out(path: str, clock: FrameClock, count: int) -> list[HeldOut]:
    """The first `count` cuts (all when there are fewer) of a Shar directory or a cut manifest (jsonl, jsonl.gz).

    Raises:
        ValueError: when there are none, or a cut does not fit the clock or names an unknown speaker.
    """
    from lhotse import CutSet

    if not Path(path).exists():
        raise ValueError(f"cuts {path!r}: no such file; expected a Shar directory or a cut manifest (.jsonl.gz)")
    cuts = CutSet.from_shar(in_dir=path) if Path(path).is_dir() else CutSet.from_file(path)
    sessions = [held_out(cut, clock) for cut in islice(cuts, count)]
    if not sessions:
        raise ValueError(f"cuts {path!r}: no sessions to evaluate on (sessions={count}); expected at least one")
    return sessions


def held_out(cut, clock: FrameClock) -> HeldOut:
    """One session from a Lhotse cut: `recording` is the user, the supervisions are the turns of both parties."""
    check_recording(cut.recording, clock.user_sample_rate, f"cut {cut.id!r}: recording")
    unknown = sorted({str(item.speaker) for item in cut.supervisions} - set(ROLES))
    if unknown:
        raise ValueError(f"cut {cut.id!r}: unknown speaker {unknown[0]!r}; expected {' or '.join(ROLES)}")
    ordered = sorted(cut.supervisions, key=lambda item: item.start)
    users, agents = ([item for item in ordered if item.speaker == role] for role in ROLES)
    user_turns, reference_turns = ([(item.start, item.end) for item in items] for items in (users, agents))
    answered_by = _answered_by(user_turns, reference_turns)
    expected = [bool(found) for found in answered_by]
    cut_short = {item.agent for item in barge_ins(user_turns, reference_turns, expected)}
    return HeldOut(
        id=cut.id,
        user_audio=cut.load_audio()[0],
        user_turns=user_turns,
        reference_turns=reference_turns,
        answers=[" ".join(agents[index].text for index in found) if found else None for found in answered_by],
        whole=[not cut_short.intersection(found) for found in answered_by],
    )


def _answered_by(user_turns: list[Turn], reference_turns: list[Turn]) -> list[list[int]]:
    """For each user turn the agent turns of the reference that start between its onset and the next user turn's."""
    edges = [start for start, _ in user_turns] + [float("inf")]
    return [
        [index for index, (start, _) in enumerate(reference_turns) if onset <= start < following]
        for onset, following in zip(edges[:-1], edges[1:], strict=True)
    ]


def stream_sessions(engine, clock: FrameClock, sessions: Sequence[HeldOut], tokenizer) -> Pass:
    """Streams sessions through an engine, as many beside each other as it has rows, longest first (rows idle less).

    Args:
        engine: a DuplexEngine.
        clock: the model's clock.
        sessions: what to stream; the result keeps this order.
        tokenizer: the model's TextTokenizer: `.tokens`, `.decode(ids)`.
    """
    done = Pass(engine.rows, engine.samples_per_step // clock.user_hop, engine.frame_delay)
    order = sorted(range(len(sessions)), key=lambda index: -len(sessions[index].user_audio))
    streamed: dict[int, Streamed] = {}
    for begin in range(0, len(order), engine.rows):
        group = order[begin : begin + engine.rows]
        streams = _stream(engine, [sessions[index].user_audio for index in group], done.step_s)
        for row, index in enumerate(group):
            mine = [stream[row] for stream in streams]
            streamed[index] = _streamed(sessions[index], *mine, clock, done.frames_per_step, tokenizer)
    done.sessions = [streamed[index] for index in range(len(sessions))]
    return done


def _streamed(session: HeldOut, text_T, codes_TQ, audio_TS, clock: FrameClock, delay: int, tokenizer) -> Streamed:
    """One row as a session; `delay`: frames by which the audio is heard later."""
    frames = clock.user_frames(len(session.user_audio))
    assert len(text_T) >= frames, f"session {session.id!r}: expected {frames} frames from the engine, got {len(text_T)}"
    turns = turns_in(text_T[:frames], tokenizer.tokens)
    return Streamed(
        held_out=session,
        text=text_T[:frames],
        codes=codes_TQ[:frames],
        audio=torch.cat([audio_TS.new_zeros(delay * clock.agent_hop), audio_TS[:frames].flatten()]).numpy(),
        agent_turns=_in_seconds(turns, clock),
        texts=[tokenizer.decode(turn.ids) for turn in turns],
    )


def _in_seconds(turns: list[HeardTurn], clock: FrameClock) -> list[Turn]:
    """A turn without an EOS ends where the next begins; only the last can be open to the session's end."""
    spans = []
    for turn, following in zip_longest(turns, turns[1:]):
        end = following.start if turn.end is None and following else turn.end
        spans.append((clock.seconds(turn.start), None if end is None else clock.seconds(end)))
    return spans


def _stream(engine, audios: list[np.ndarray], step_s: list[float]) -> tuple[Tensor, Tensor, Tensor]:
    """Streams one group, a session in each row; returns text [B, T], codes [B, T, Q] and audio [B, T, S of one frame].

    A step is done when its results are on the host. Sessions that end earlier hear silence until the last has ended.
    """
    size = engine.samples_per_step
    steps = max(-(-len(audio) // size) for audio in audios)
    samples_BS = torch.zeros(engine.rows, steps * size)
    for row, audio in enumerate(audios):
        samples_BS[row, : len(audio)] = torch.from_numpy(audio)
    for row in range(len(audios)):
        engine.join(row)
    frames = []
    for step_BS in samples_BS.split(size, dim=1):
        begin = perf_counter()
        frames += [(frame.text.cpu(), frame.codes.cpu(), frame.audio.float().cpu()) for frame in engine.step(step_BS)]
        step_s.append(perf_counter() - begin)
    for row in range(len(audios)):
        engine.leave(row)
    return tuple(torch.stack(values, dim=1) for values in zip(*frames, strict=True))


def score_session(streamed: Streamed, clock: FrameClock, silence_dbfs: float) -> SessionScore:
    """Scores one session by the turns of its text and by its turns as heard."""
    reference = streamed.held_out
    users, expected = reference.user_turns, reference.expected
    heard = audible_turns(streamed.audio, clock.agent_sample_rate, silence_dbfs)
    return SessionScore(
        turns=score(users, streamed.agent_turns, expected),
        audible=score(users, heard, expected),
        barge_ins=barge_ins(users, streamed.agent_turns, expected),
        pairs=_answer_pairs(streamed),
    )


def _answer_pairs(streamed: Streamed) -> list[tuple[str, str]]:
    """(reference, agent) texts of the answered user turns whose answer nobody interrupted, here or in the reference."""
    reference = streamed.held_out
    users, agents, expected = reference.user_turns, streamed.agent_turns, reference.expected
    cut_short = {item.agent for item in barge_ins(users, agents, expected)}
    matched = zip(reference.answers, reference.whole, answers(users, agents, expected), strict=True)
    return [
        (answer, streamed.texts[agent])
        for answer, whole, agent in matched
        if answer is not None and whole and agent is not None and agent not in cut_short
    ]


def spoken_pieces(streamed: Streamed, clock: FrameClock, lag_frames: int) -> list[tuple[str, np.ndarray]]:
    """(text, audio as heard) of the agent's turns that ended and were not interrupted, for a listener to write down."""
    cut_short = {item.agent for item in barge_ins(streamed.held_out.user_turns, streamed.agent_turns)}
    lag_s, rate = clock.seconds(lag_frames), clock.agent_sample_rate
    return [
        (text, streamed.audio[round((start + lag_s) * rate) : round((end + lag_s) * rate)])
        for index, ((start, end), text) in enumerate(zip(streamed.agent_turns, streamed.texts, strict=True))
        if end is not None and index not in cut_short
    ]

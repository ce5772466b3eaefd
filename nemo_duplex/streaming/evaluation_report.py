"""The report of an evaluation: scores of all sessions pooled, speed, sizes, and the three files that people look at.

    [SessionScore], pace of a rows=1 pass, model  -->  report.json, a table
    the most telling session                      -->  conversation.wav (user left, agent right, as heard), timeline.png

A number that could not be measured (nothing to divide by, or not asked for) is null in the json and '-' in the table.
Boundary: takes what evaluation.py streamed and scored; restores no model.
"""

import json
import resource
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import reduce
from operator import add
from pathlib import Path
from time import perf_counter

import numpy as np
import soundfile
import torch
from torch import nn

from nemo_duplex.clock import FrameClock
from nemo_duplex.data.files import atomic
from nemo_duplex.metrics.latency import frame_times, real_time_factor
from nemo_duplex.metrics.picture import Picture, save_timeline
from nemo_duplex.metrics.speech import SpeechJudge, text_accuracy, word_error_rate
from nemo_duplex.metrics.turn_taking import TurnScore
from nemo_duplex.streaming.evaluation import Pass, SessionScore, Streamed, spoken_pieces


@contextmanager
def timed(stages_s: dict[str, float], name: str) -> Iterator[None]:
    """Writes how long the block took into `stages_s`."""
    begin = perf_counter()
    yield
    stages_s[name] = perf_counter() - begin


def read_stages(path: str | None) -> dict[str, float]:
    """Seconds of the stages before this one, from a json of name -> seconds; empty for no path.

    Raises:
        ValueError: when the file is absent or is something else.
    """
    if path is None:
        return {}
    if not Path(path).is_file():
        raise ValueError(f"stages {path!r}: no such file; expected a json of stage name -> seconds, or stages=null")
    values = json.loads(Path(path).read_text(encoding="utf-8"))
    if not isinstance(values, dict) or not all(isinstance(value, (int, float)) for value in values.values()):
        raise ValueError(f"stages {path!r}: expected a json of stage name -> seconds, got {str(values)[:80]}")
    return values


def quality(scores: Sequence[SessionScore]) -> dict:
    """The pooled part of the report: turn_taking, barge_in, text_accuracy, text_wer and the counts under them."""
    turns = reduce(add, (item.turns for item in scores), TurnScore())
    heard = reduce(add, (item.audible for item in scores), TurnScore())
    pairs = [pair for item in scores for pair in item.pairs]
    as_heard = heard.barge_in()
    return {
        "turn_taking": turns.turn_taking() | {"audible_latency_s": heard.turn_taking()["latency_s"]},
        "barge_in": turns.barge_in() | {"audible": {key: as_heard[key] for key in ("success", "latency_s", "count")}},
        "text_accuracy": text_accuracy(pairs),
        "text_wer": word_error_rate(pairs),
        "counts": {
            "sessions": len(scores),
            "user_turns": turns.user_turns,
            "agent_turns": turns.agent_turns,
            "answered_turns": len(turns.latencies),
            "false_alarms": turns.false_alarms,
            "compared_texts": len(pairs),
        },
    }


def speed(live: Pass, quality_pass: Pass, clock: FrameClock) -> dict:
    """frame_ms and real_time_factor of a live user (the rows=1 pass), and how many rows each pass had."""
    frames = live.frames_per_step
    return {
        "frame_ms": frame_times([1000 * seconds / frames for seconds in live.step_s], clock.frame_ms),
        "real_time_factor": real_time_factor(sum(live.step_s), clock.seconds(len(live.step_s) * frames)),
        "frames_per_step": frames,
        "lag_frames": live.lag_frames,
        "rows": {"frame_ms": live.rows, "quality": quality_pass.rows},
        "threads": torch.get_num_threads(),
    }


def intelligibility(done: Pass, clock: FrameClock, judge: SpeechJudge | None, stages_s: dict[str, float]) -> dict:
    """wer of the agent's audio against its own text, and count (turns listened to); nothing without a judge."""
    if judge is None:
        return {"wer": None, "count": 0}
    pieces = [piece for streamed in done.sessions for piece in spoken_pieces(streamed, clock, done.lag_frames)]
    with timed(stages_s, "intelligibility"):
        return {"wer": judge.word_error_rate(pieces, clock.agent_sample_rate), "count": len(pieces)}


def parameters(net: nn.Module, codec: nn.Module) -> dict[str, int]:
    """Parameters of: encoder and adapter, LLM with its text embedding and head, code tables in and out, codec."""
    parts = {"encoder": [net.perception], "llm": [net.backbone], "heads": [net.fusion, net.heads], "codec": [codec]}
    return {
        name: sum(value.numel() for value in nn.ModuleList(modules).parameters()) for name, modules in parts.items()
    }


def sizes(model, state_bytes: int) -> dict:
    """Parameters, bytes of one session's state, and the largest resident memory of this process so far (10^9 bytes)."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return {
        "parameters": parameters(model.net, model.codec_model),
        "state_bytes": state_bytes,
        "peak_rss_gb": peak / 1e9,
    }


def most_telling(sessions: Sequence[Streamed], scores: Sequence[SessionScore], name: str | None = None) -> int:
    """Index of the session to show: the named one, or one with a barge-in (a successful one first) and most answers.

    Raises:
        ValueError: when there is no session of that name.
    """
    names = [item.held_out.id for item in sessions]
    if name is not None and name not in names:
        raise ValueError(f"show {name!r}: not among the evaluated sessions; name one of {', '.join(names[:8])} ...")
    if name is not None:
        return names.index(name)

    def telling(index: int) -> tuple:
        mine = scores[index].turns
        return bool(mine.stop_latencies), mine.barge_ins > 0, len(mine.latencies)

    return max(range(len(sessions)), key=telling)


def write_report(report: dict, path: Path) -> None:
    """Writes report.json, whole or not at all; a NaN is an error, never a value."""
    with atomic(path) as part:
        part.write_text(json.dumps(report, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def write_conversation(streamed: Streamed, clock: FrameClock, path: Path) -> None:
    """Writes stereo audio at the agent's rate: the user on the left, the agent on the right, as heard."""
    import soxr

    user = soxr.resample(streamed.held_out.user_audio, clock.user_sample_rate, clock.agent_sample_rate)
    stereo = np.zeros((max(len(user), len(streamed.audio)), 2), dtype=np.float32)
    stereo[: len(user), 0] = user
    stereo[: len(streamed.audio), 1] = streamed.audio
    with atomic(path) as part:
        soundfile.write(part, stereo, clock.agent_sample_rate, subtype="PCM_16")


def write_timeline(streamed: Streamed, scored: SessionScore, clock: FrameClock, tokenizer, path: Path) -> None:
    """Draws one session: who speaks when, the text tokens, barge-ins and when the agent stopped."""
    control = {tokenizer.tokens.pad, tokenizer.tokens.bos, tokenizer.tokens.eos}
    ids = enumerate(streamed.text.tolist())
    user_audio, agent_audio = streamed.held_out.user_audio, streamed.audio
    picture = Picture(
        title=streamed.held_out.id,
        duration_s=max(len(user_audio) / clock.user_sample_rate, len(agent_audio) / clock.agent_sample_rate),
        user_audio=(user_audio, clock.user_sample_rate),
        agent_audio=(agent_audio, clock.agent_sample_rate),
        user_turns=streamed.held_out.user_turns,
        agent_turns=streamed.agent_turns,
        reference_turns=streamed.held_out.reference_turns,
        tokens=[(clock.seconds(frame), tokenizer.decode([token])) for frame, token in ids if token not in control],
        barge_ins=scored.barge_ins,
    )
    with atomic(path) as part:
        save_timeline(picture, part)


def table_rows(report: dict, prefix: str = "") -> list[tuple[str, str]]:
    """The report as (name, value) lines, in its own order; '-' for what could not be measured."""
    rows: list[tuple[str, str]] = []
    for name, value in report.items():
        if isinstance(value, dict):
            rows += table_rows(value, f"{prefix}{name}.")
        else:
            rows.append((prefix + name, _shown(value)))
    return rows


def _shown(value) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.3f}"
    return f"{value:,}" if isinstance(value, int) else str(value)

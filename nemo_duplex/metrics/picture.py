"""timeline.png: one session as staves of ten seconds at most, who speaks when and what the agent writes.

    user    ~~~~|shaded: the user's turns|~~~~~~~~~~|barge-in ...
    tokens        h e l l o   each above its frame  |      |
    agent   ~~~~~~~~~~~~|shaded: turns as spoken|~~~|~~~~~~|stopped after 0.48 s
            ............|thin bar: the reference turn|.....

The agent's audio is drawn as it is heard, its text and turns on the clock of the text, so the sound follows its shade
by the delay of the codes and of the step.
Boundary: arrays, pairs and labels in, a matplotlib figure out (Agg, no display).
"""

from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nemo_duplex.metrics.turn_taking import BargeIn, Turn

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

STAVE_S = 10.0
ENVELOPE_S = 0.02
QUIETEST_PEAK = 0.05
PNG_COLORS = 64
BARGE_IN_Y, USER_Y, TOKENS_Y, AGENT_Y, REFERENCE_Y = 2.15, 1.6, 0.48, 0.0, -0.55
LANE_HALF = 0.42
COLORS = {"user": "#1f77b4", "agent": "#e07b00", "reference": "#777777", "onset": "#c4002f", "stop": "#1a7f37"}


@dataclass
class Picture:
    """All that the picture shows; times in seconds, agent turns with end None last to the session's end.

    Attributes:
        user_audio, agent_audio: (samples, sample rate), the agent's as it is heard.
        user_turns, agent_turns, reference_turns: the user's, the agent's as spoken, the agent's in the reference.
        tokens: (time, label) of each text token.
    """

    title: str
    duration_s: float
    user_audio: tuple[np.ndarray, int]
    agent_audio: tuple[np.ndarray, int]
    user_turns: list[Turn]
    agent_turns: list[Turn]
    reference_turns: list[Turn] = field(default_factory=list)
    tokens: list[tuple[float, str]] = field(default_factory=list)
    barge_ins: list[BargeIn] = field(default_factory=list)


def save_timeline(picture: Picture, path: str | Path) -> None:
    """Writes the picture as a PNG with a palette (a third of the bytes)."""
    from PIL import Image

    drawn = BytesIO()
    draw(picture).savefig(drawn, format="png", dpi=100)
    Image.open(drawn).convert("RGB").quantize(PNG_COLORS, Image.Quantize.MAXCOVERAGE).save(
        path, format="png", optimize=True
    )


def draw(picture: Picture) -> "Figure":
    """The figure: one axes for each stave, equally long."""
    from matplotlib.figure import Figure

    staves = max(1, int(np.ceil(picture.duration_s / STAVE_S)))
    edges = np.linspace(0, picture.duration_s, staves + 1).tolist()
    figure = Figure(figsize=(13.5, 0.9 + 2.5 * staves), layout="constrained")
    all_axes = figure.subplots(staves, 1, squeeze=False)[:, 0]
    for axes, span in zip(all_axes, zip(edges[:-1], edges[1:], strict=True), strict=True):
        _draw_stave(axes, picture, span)
    all_axes[-1].set_xlabel("seconds")
    figure.suptitle(picture.title, fontsize=11, parse_math=False)
    figure.legend(handles=_legend(), loc="outside lower center", ncols=5, fontsize=8, frameon=False)
    return figure


def _draw_stave(axes: "Axes", picture: Picture, span: Turn) -> None:
    axes.set_xlim(span)
    axes.set_ylim(REFERENCE_Y - 0.12, BARGE_IN_Y + 0.35)
    axes.set_yticks([AGENT_Y, (TOKENS_Y + USER_Y - LANE_HALF) / 2, USER_Y], ["agent", "agent text", "user"])
    axes.set_xticks(np.arange(np.ceil(span[0]), span[1] + 1e-6))
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right", "left"]].set_visible(False)
    for y, who, audio, turns in (
        (USER_Y, "user", picture.user_audio, picture.user_turns),
        (AGENT_Y, "agent", picture.agent_audio, picture.agent_turns),
    ):
        _draw_turns(axes, picture, turns, (y - LANE_HALF, 2 * LANE_HALF), who, alpha=0.18)
        _draw_audio(axes, audio, y, COLORS[who], span)
    _draw_turns(axes, picture, picture.reference_turns, (REFERENCE_Y, 0.06), "reference")
    for time, label in picture.tokens:
        if span[0] <= time < span[1]:
            _draw_token(axes, time, label)
    for item in picture.barge_ins:
        _draw_barge_in(axes, item, picture.duration_s, span)


def _draw_turns(axes: "Axes", picture: Picture, turns: list[Turn], y: tuple[float, float], who: str, alpha=1.0) -> None:
    spans = [(start, (picture.duration_s if end is None else end) - start) for start, end in turns]
    axes.broken_barh(spans, y, linewidth=0, facecolor=COLORS[who], alpha=alpha, gid=f"{who} turns")


def _draw_audio(axes: "Axes", audio: tuple[np.ndarray, int], y: float, color: str, span: Turn) -> None:
    samples, rate = audio
    peak = max(float(np.abs(samples).max(initial=0.0)), QUIETEST_PEAK)
    shown = samples[int(span[0] * rate) : int(span[1] * rate)]
    size = max(1, int(rate * ENVELOPE_S))
    envelope = np.abs(shown[: len(shown) // size * size]).reshape(-1, size).max(axis=1) / peak * LANE_HALF
    times = span[0] + np.arange(len(envelope)) * size / rate
    axes.fill_between(times, y - envelope, y + envelope, color=color, linewidth=0, gid="audio")


def _draw_token(axes: "Axes", time: float, label: str) -> None:
    text = label.strip() or "\N{OPEN BOX}"
    axes.text(time, TOKENS_Y, text, rotation=90, fontsize=7, ha="left", va="bottom", parse_math=False, gid="token")


def _draw_barge_in(axes: "Axes", item: BargeIn, duration_s: float, span: Turn) -> None:
    (begin, end), last = span, duration_s if item.stop is None else item.stop
    if begin <= item.onset < end:
        axes.axvline(item.onset, color=COLORS["onset"], linestyle="--", linewidth=1.2, gid="onset")
    if item.stop is not None and begin <= item.stop < end:
        axes.axvline(item.stop, color=COLORS["stop"], linewidth=1.2, gid="stop")
    if item.onset < end and last > begin:
        shown = [max(item.onset, begin), min(last, end)]
        axes.hlines(BARGE_IN_Y, *shown, color=COLORS["onset"], linewidth=2.5, gid="latency")
        words = "agent did not stop" if item.stop is None else f"agent stopped after {item.latency:.2f} s"
        side = "left" if shown[0] < (begin + end) / 2 else "right"
        style = {"fontsize": 8, "color": COLORS["onset"], "bbox": {"facecolor": "white", "linewidth": 0, "pad": 0.5}}
        axes.text(shown[0], BARGE_IN_Y + 0.1, f" barge-in: {words} ", ha=side, gid="barge-in", **style)


def _legend() -> list:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    return [
        Patch(color=COLORS["user"], alpha=0.3, label="user turn"),
        Patch(color=COLORS["agent"], alpha=0.3, label="agent turn, as spoken (text BOS to EOS)"),
        Patch(color=COLORS["reference"], label="agent turn in the reference"),
        Line2D([], [], color=COLORS["onset"], linestyle="--", label="user barges in"),
        Line2D([], [], color=COLORS["stop"], label="agent stops"),
    ]

"""timeline.png: what is drawn where, and that the file is a PNG of the right size."""

import numpy as np
import pytest
from PIL import Image

from nemo_duplex.metrics.picture import STAVE_S, Picture, draw, save_timeline
from nemo_duplex.metrics.turn_taking import BargeIn

RATE = 8000


def picture(seconds=26.0, **changes):
    noise = np.random.default_rng(0).uniform(-0.3, 0.3, round(seconds * RATE)).astype(np.float32)
    values = {
        "title": "session-017 costs $5 or $6",
        "duration_s": seconds,
        "user_audio": (noise, RATE),
        "agent_audio": (noise, RATE),
        "user_turns": [(0.4, 2.6), (7.0, 9.2), (21.0, 22.0)],
        "agent_turns": [(3.2, 6.5), (9.8, None)],
        "reference_turns": [(3.2, 6.4)],
        "tokens": [(3.28 + 0.08 * index, f"${index}_$") for index in range(12)] + [(9.9, " ")],
        "barge_ins": [BargeIn(1, 0, 5.0, 5.56), BargeIn(2, 1, 21.0, None)],
    }
    return Picture(**(values | changes))


def drawn(figure, gid):
    return [(axes, item) for axes in figure.axes for item in axes.findobj(lambda artist: artist.get_gid() == gid)]


def test_staves_are_equally_long_and_cover_the_session():
    spans = [axes.get_xlim() for axes in draw(picture(seconds=26.0)).axes]
    assert len(spans) == 3
    assert [length for span in spans for length in [span[1] - span[0]]] == pytest.approx([26 / 3] * 3)
    assert (spans[0][0], spans[-1][1]) == (0.0, 26.0)
    assert len(draw(picture(seconds=STAVE_S)).axes) == 1


def test_each_barge_in_has_a_line_at_its_onset_and_one_where_the_agent_stopped():
    figure = draw(picture())
    assert [line.get_xdata()[0] for _, line in drawn(figure, "onset")] == [5.0, 21.0]
    assert [line.get_xdata()[0] for _, line in drawn(figure, "stop")] == [5.56]
    assert [axes.get_xlim()[0] for axes, _ in drawn(figure, "onset")] == pytest.approx([0, 52 / 3])


def test_the_latency_is_written_beside_it():
    words = [text.get_text().strip() for _, text in drawn(draw(picture()), "barge-in")]
    assert words == ["barge-in: agent stopped after 0.56 s", "barge-in: agent did not stop"]


def test_a_barge_in_across_two_staves_is_drawn_in_both():
    """Staves of 10 s: the user starts at 9.5 in the first, the agent stops at 10.4 in the second."""
    figure = draw(picture(seconds=20.0, barge_ins=[BargeIn(1, 1, 9.5, 10.4)]))
    assert [axes.get_xlim()[0] for axes, _ in drawn(figure, "latency")] == [0.0, 10.0]
    assert len(drawn(figure, "onset")) == len(drawn(figure, "stop")) == 1


def test_every_token_stands_once_above_its_frame():
    figure = draw(picture())
    labels = [(text.get_position()[0], text.get_text()) for _, text in drawn(figure, "token")]
    assert labels == [(3.28 + 0.08 * index, f"${index}_$") for index in range(12)] + [(9.9, "\N{OPEN BOX}")]


def test_turns_are_shaded_and_an_open_turn_lasts_to_the_end():
    figure = draw(picture())
    spans = [
        path.get_extents().intervalx.tolist()
        for _, bars in drawn(figure, "agent turns")[:1]
        for path in bars.get_paths()
    ]
    assert spans == [[3.2, 6.5], [9.8, 26.0]]
    assert len(drawn(figure, "user turns")) == 3


def test_axes_are_in_seconds_and_name_both_parties():
    axes = draw(picture()).axes[-1]
    assert axes.get_xlabel() == "seconds"
    assert [label.get_text() for label in axes.get_yticklabels()] == ["agent", "agent text", "user"]


def test_a_session_without_agent_and_sound(tmp_path):
    silent = picture(
        user_audio=(np.zeros(0, np.float32), RATE), agent_turns=[], reference_turns=[], tokens=[], barge_ins=[]
    )
    save_timeline(silent, tmp_path / "timeline.png")
    assert (tmp_path / "timeline.png").stat().st_size > 1000


def test_the_file_is_a_small_png_even_of_a_minute_of_speech(tmp_path):
    """Noise whose loudness changes every 10 ms: as ragged an outline as there can be."""
    path = tmp_path / "timeline.png"
    loudness = np.repeat(np.random.default_rng(1).uniform(0, 1, 6000), RATE // 100)
    speech = (loudness * np.random.default_rng(0).uniform(-0.3, 0.3, len(loudness)), RATE)
    save_timeline(picture(seconds=60.0, user_audio=speech, agent_audio=speech), path)
    with Image.open(path) as image:
        assert (image.format, image.size) == ("PNG", (1350, 1590))
    assert path.stat().st_size <= 200_000

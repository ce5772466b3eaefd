"""The report, the table and the files of an evaluation, from the example run with a scripted engine."""

import importlib.util
import json
import math
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import soundfile
from lhotse import CutSet
from streaming.scripted import CLOCK, PLANS, ScriptedEngine, Words, cut_of, stream
from torch import nn

from nemo_duplex.config import EvaluateConfig, build
from nemo_duplex.streaming import evaluation_report as reports
from nemo_duplex.streaming.evaluation import Pass, held_out, score_session

SCRIPT = Path(__file__).parents[2] / "examples" / "duplex_evaluate.py"


@pytest.fixture(scope="module")
def cuts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cuts")
    return [cut_of(index, folder) for index in range(len(PLANS))]


@pytest.fixture(scope="module")
def sessions(cuts):
    return [held_out(cut, CLOCK) for cut in cuts]


def near(value, within=1e-9):
    return pytest.approx(value, abs=within)


def test_the_most_telling_session_has_a_barge_in(sessions):
    done = stream(sessions).sessions
    scores = [score_session(streamed, CLOCK, -40.0) for streamed in done]
    assert reports.most_telling(done, scores) == 1
    assert reports.most_telling(done[::2], scores[::2]) == 0
    assert reports.most_telling(done, scores, "session-2") == 2
    with pytest.raises(ValueError, match="show 'nobody': not among"):
        reports.most_telling(done, scores, "nobody")


def test_speed_is_of_the_pass_of_one_row_and_for_each_frame():
    """Three steps of two frames: 60 ms for 160 ms of audio, twice, and one of 200 ms, which is late."""
    live = Pass(rows=1, frames_per_step=2, frame_delay=1, step_s=[0.06, 0.2, 0.06])
    report = reports.speed(live, Pass(rows=4, frames_per_step=2, frame_delay=1, step_s=[9.0]), CLOCK)
    assert report["frame_ms"]["p50"] == near(30.0)
    assert report["frame_ms"]["late"] == near(1 / 3)
    assert report["real_time_factor"] == near(0.32 / 0.48)
    assert report["lag_frames"] == 3
    assert report["rows"] == {"frame_ms": 1, "quality": 4}


def test_the_user_is_on_the_left_and_the_agent_on_the_right_as_heard(sessions, tmp_path):
    """The user ticks at 0 s, the agent is heard from frame 30 on; the whole session is in the file."""
    reports.write_conversation(stream(sessions).sessions[1], CLOCK, tmp_path / "conversation.wav")
    sound, rate = soundfile.read(tmp_path / "conversation.wav")
    assert (rate, sound.shape) == (CLOCK.agent_sample_rate, (131 * CLOCK.agent_hop, 2))
    assert np.abs(sound[:, 0]).argmax() < CLOCK.agent_hop and np.abs(sound[:, 0]).max() > 0.01
    loud = np.flatnonzero(np.abs(sound[:, 1]) > 0.1) // CLOCK.agent_hop
    assert (loud[0], loud[-1]) == (30, 111)


def test_parameters_are_counted_by_part_and_shared_ones_once():
    table = nn.Linear(4, 3, bias=False)
    net = SimpleNamespace(
        perception=nn.Linear(2, 2),
        backbone=nn.ModuleList([table, table]),
        fusion=nn.Embedding(5, 2),
        heads=nn.Linear(2, 1),
    )
    assert reports.parameters(net, nn.Linear(1, 1)) == {"encoder": 6, "llm": 12, "heads": 13, "codec": 2}


def test_stages_of_before_are_read_or_named(tmp_path):
    path = tmp_path / "stages.json"
    path.write_text('{"prepare": 12.5, "train": 300}')
    assert reports.read_stages(str(path)) == {"prepare": 12.5, "train": 300}
    assert reports.read_stages(None) == {}
    path.write_text('{"prepare": "long"}')
    with pytest.raises(ValueError, match="expected a json of stage name -> seconds"):
        reports.read_stages(str(path))
    with pytest.raises(ValueError, match="no such file"):
        reports.read_stages(str(tmp_path / "absent.json"))


@pytest.mark.parametrize("frames_per_step", [1, 2])
def test_the_judge_hears_each_whole_turn_where_it_sounds(sessions, frames_per_step):
    """Two turns ended and were not interrupted, of 20 frames each; their sound lags by the step and the codes' delay."""
    heard, stages_s = [], {}

    def word_error_rate(pieces, rate):
        heard.extend(pieces)
        return 0.25

    done = stream(sessions, 2, frames_per_step)
    judge = SimpleNamespace(word_error_rate=word_error_rate)
    assert reports.intelligibility(done, CLOCK, judge, stages_s) == {"wer": 0.25, "count": 2}
    assert [(text, len(audio)) for text, audio in heard] == [("it is paris", 20 * CLOCK.agent_hop)] * 2
    for _, audio in heard:
        assert np.abs(audio).reshape(20, -1).max(axis=1).min() > 0.1
    assert list(stages_s) == ["intelligibility"]


def test_what_could_not_be_measured_is_null_and_a_dash(tmp_path):
    report = reports.quality([])
    assert report["turn_taking"]["precision"] is report["barge_in"]["success"] is report["text_accuracy"] is None
    reports.write_report(report, tmp_path / "report.json")
    assert json.loads((tmp_path / "report.json").read_text())["turn_taking"]["recall"] is None
    assert ("turn_taking.recall", "-") in reports.table_rows(report)
    assert reports.table_rows({"a": {"b": 0.12345}, "c": 1234567, "d": "x"}) == [
        ("a.b", "0.123"),
        ("c", "1,234,567"),
        ("d", "x"),
    ]


def test_a_report_is_whole_or_absent(tmp_path):
    with pytest.raises(ValueError):
        reports.write_report({"a": math.nan}, tmp_path / "report.json")
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def script(monkeypatch):
    """The example, with a scripted engine and a model of a few numbers in the place of the real ones."""
    parts = SimpleNamespace(
        perception=nn.Linear(2, 2), backbone=nn.Linear(1, 1), fusion=nn.Linear(1, 1), heads=nn.Linear(1, 1)
    )
    config = SimpleNamespace(code_delay=1)
    model = SimpleNamespace(net=parts, codec_model=nn.Linear(3, 1), tokenizer=Words(), clock=CLOCK, config=config)
    models, engine = ModuleType("nemo_duplex.models"), ModuleType("nemo_duplex.streaming.engine")
    models.DuplexModel = SimpleNamespace(restore_from=lambda path: model)
    engine.DuplexEngine = SimpleNamespace(from_model=lambda model, rows: ScriptedEngine(rows))
    monkeypatch.setitem(sys.modules, models.__name__, models)
    monkeypatch.setitem(sys.modules, engine.__name__, engine)
    spec = importlib.util.spec_from_file_location("duplex_evaluate", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_script_writes_the_report_the_sound_and_the_picture(script, cuts, tmp_path, capsys):
    CutSet.from_cuts(cuts).to_file(tmp_path / "held_out.jsonl.gz")
    (tmp_path / "stages.json").write_text('{"train": 300.0, "stream": -1}')
    values = {
        "model": "a.nemo",
        "cuts": str(tmp_path / "held_out.jsonl.gz"),
        "output": str(tmp_path / "out"),
        "rows": 2,
    }
    script.main(build(EvaluateConfig, values | {"stages": str(tmp_path / "stages.json")}))

    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["turn_taking"] == {
        "precision": 0.75,  # the answer to the barge-in came 2 s late
        "recall": 0.6,
        "latency_s": near(0.64),
        "latency_median_s": near(0.64),
        "audible_latency_s": near(0.8, within=0.021),
        "count": 5,
    }
    assert report["barge_in"] == {
        "success": 1.0,
        "latency_s": near(0.56),
        "latency_median_s": near(0.56),
        "false_alarm_rate": 0.0,
        "count": 1,
        "audible": {"success": 1.0, "latency_s": near(0.72, within=0.021), "count": 1},
    }
    assert (report["text_accuracy"], report["text_wer"]) == (0.5, 0.75)
    assert report["intelligibility"] == {"wer": None, "count": 0}
    assert report["frame_ms"].keys() == {"p50", "p95", "p99", "late"}
    assert 0 < report["frame_ms"]["p50"] <= report["frame_ms"]["p99"]
    assert report["real_time_factor"] < 1
    assert report["parameters"] == {"encoder": 6, "llm": 2, "heads": 4, "codec": 4}
    assert report["state_bytes"] == 4321
    assert 0.01 < report["peak_rss_gb"] < 100
    assert report["stages_s"].keys() == {"train", "restore", "stream", "stream_alone"}
    assert report["stages_s"]["stream"] > 0
    assert report["rows"] == {"frame_ms": 1, "quality": 2}
    assert report["threads"] == 1
    assert report["shown"] == "session-1"

    assert soundfile.info(tmp_path / "out" / "conversation.wav").channels == 2
    assert (tmp_path / "out" / "timeline.png").read_bytes().startswith(b"\x89PNG")
    assert "turn_taking.recall" in capsys.readouterr().out

import json

import numpy as np
import pytest
from lhotse import CutSet

from nemo_duplex.config import PrepareConfig, TokenizerConfig, VoiceConfig
from nemo_duplex.data import voices
from nemo_duplex.data.manifest import validate_cut
from nemo_duplex.data.prepare import prepare
from nemo_duplex.data.text_stream import TextTokenizer, agent_text, turns_in

PAIRS = [(f"What is question {name}?", f"The answer to that is simply {name} today.") for name in "abcdefg"]


class Hum:
    """A back end of a tone for each speaker: 0.06 s for each letter."""

    rate = 24000
    calls = 0

    def __init__(self, config):
        self.hertz = float(config.speaker)

    def __call__(self, text):
        Hum.calls += 1
        return 0.2 * np.sin(2 * np.pi * self.hertz * np.arange(round(0.06 * len(text) * self.rate)) / self.rate)


def hum(name, hertz):
    return VoiceConfig(name=name, backend="hum", speaker=str(hertz))


@pytest.fixture
def config(tmp_path, monkeypatch):
    monkeypatch.setitem(voices.BACKENDS, "hum", Hum)
    monkeypatch.setattr(Hum, "calls", 0)
    path = tmp_path / "questions.jsonl"
    path.write_text("\n".join(json.dumps({"question": question, "answer": answer}) for question, answer in PAIRS))
    return PrepareConfig(
        questions=str(path),
        output=str(tmp_path / "out"),
        sessions=6,
        held_out_sessions=2,
        agent_voice=hum("agent", 200),
        user_voices=[hum("low", 100), hum("high", 300)],
        held_out_voices=[hum("unheard", 150)],
        vocabulary=300,
        workers=1,
    )


def said(cut):
    return [turn.text for turn in cut.supervisions]


def read(config, name):
    return list(CutSet.from_file(f"{config.output}/{name}.jsonl.gz"))


def test_a_data_set_is_whole_and_valid(config, clock):
    returned = prepare(config)
    train, held_out, utterances = (read(config, name) for name in ("train", "held_out", "agent_utterances"))
    assert {name: len(cuts) for name, cuts in returned.items()} == {"train": 6, "held_out": 2, "agent_utterances": 7}
    assert [cut.user_voice for cut in train] == ["low", "high"] * 3
    assert [cut.user_voice for cut in held_out] == ["unheard"] * 2
    assert {cut.supervisions[0].text for cut in utterances} == {answer for _, answer in PAIRS}
    tokenizer = TextTokenizer(TokenizerConfig(path=f"{config.output}/tokenizer.json"))
    for cut in train + held_out:
        validate_cut(cut, clock)
        assert cut.num_samples % clock.user_hop == 0 and 4 <= len(cut.supervisions) <= 8
        assert len(cut.events) == sum(bool(turn.custom and turn.custom["interrupted"]) for turn in cut.supervisions)
        heard = turns_in(agent_text(cut, clock.frames_in(cut.duration), tokenizer, clock), tokenizer.tokens)
        for turn, (start, end, ids) in zip(cut.supervisions[1::2], heard, strict=True):
            assert (start, end) == (clock.frame_at(turn.start), clock.frames_in(turn.end))
            assert turn.text.startswith(tokenizer.decode(ids).rstrip("\ufffd"))
    assert any(cut.events for cut in train)


def test_the_same_seed_makes_the_same_files_and_speaks_nothing_twice(config, tmp_path):
    def files():
        return {path: path.read_bytes() for path in (tmp_path / "out").rglob("*.wav")}

    prepare(config)
    first, calls = files(), Hum.calls
    train = read(config, "train")
    prepare(config)
    assert files() == first and Hum.calls == calls <= 7 * 4 and read(config, "train") == train
    config.seed = 1
    prepare(config)
    assert files() != first
    assert [said(cut) for cut in read(config, "train")] != [said(cut) for cut in train]


def test_where_a_user_speaks_the_wav_is_loud(config):
    prepare(config)
    for cut in read(config, "train"):
        streams = {"user": (cut.load_audio()[0], 16000), "agent": (cut.load_target_audio()[0], 22050)}
        for speaker, (samples, rate) in streams.items():
            spoken = np.zeros(len(samples), bool)
            for turn in cut.supervisions:
                if turn.speaker == speaker:
                    span = slice(round(turn.start * rate), round(turn.end * rate))
                    spoken[span] = True
                    assert np.sqrt(np.mean(samples[span] ** 2)) == pytest.approx(10 ** (-24 / 20), rel=0.05)
            assert not samples[~spoken].any()


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"held_out_voices": [hum("high", 150)]}, "two voices share the name 'high'"),
        ({"held_out_voices": [hum("unheard", 300)]}, "two voices share the backend, speaker and warp"),
        ({"agent_voice": hum("agent", 100)}, "two voices share the backend, speaker and warp"),
        ({"user_voices": []}, "user_voices is empty, 6 sessions need"),
        ({"turns": [2, 8]}, "2 to 8 of 7 pairs"),
        ({"questions": "absent.jsonl"}, "absent.jsonl"),
    ],
)
def test_a_bad_config_writes_nothing(config, tmp_path, changes, match):
    for key, value in changes.items():
        setattr(config, key, value)
    with pytest.raises((ValueError, FileNotFoundError), match=match):
        prepare(config)
    assert not (tmp_path / "out").exists()


def test_an_answer_with_too_many_tokens_is_named_and_no_manifest_is_written(config, tmp_path):
    config.timeline.barge_in_probability = 0.0
    (tmp_path / "questions.jsonl").write_text(
        "\n".join(json.dumps({"question": f"q{mark}?", "answer": mark * 40}) for mark in "東京都名")
    )
    Hum.__call__, spoken = lambda self, text: np.full(24000, 0.1, np.float32), Hum.__call__
    try:
        with pytest.raises(ValueError, match="cut 'train-0000', agent turn .* tokens and a BOS for 13 frames"):
            config.vocabulary = 259
            prepare(config)
    finally:
        Hum.__call__ = spoken
    assert not list((tmp_path / "out").glob("*.jsonl.gz"))

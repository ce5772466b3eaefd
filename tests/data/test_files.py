import numpy as np
import pytest
import soundfile

from nemo_duplex.data.files import atomic, read_wav, write_wav


def test_an_error_while_writing_leaves_the_former_file_and_no_rest(tmp_path):
    path = tmp_path / "deep" / "a.txt"
    with atomic(path) as part:
        part.write_text("whole")
        node = part.stat().st_ino
    assert path.stat().st_ino == node, "renamed, not copied"
    with pytest.raises(KeyError), atomic(path) as part:
        part.write_text("ha")
        assert path.read_text() == "whole"
        raise KeyError("killed")
    assert path.read_text() == "whole"
    assert [entry.name for entry in path.parent.iterdir()] == ["a.txt"]


def test_samples_come_back_within_one_step_of_16_bits(tmp_path):
    samples = np.linspace(-0.9, 0.9, 777, dtype=np.float32)
    write_wav(tmp_path / "a.wav", samples, 16000)
    assert np.abs(read_wav(tmp_path / "a.wav", 16000) - samples).max() <= 1 / 32768


def test_nan_is_not_written(tmp_path):
    with pytest.raises(ValueError, match="NaN"):
        write_wav(tmp_path / "a.wav", np.array([0.0, np.nan], np.float32), 16000)
    assert not (tmp_path / "a.wav").exists()


@pytest.mark.parametrize(
    ("shape", "rate", "match"),
    [((100, 2), 16000, "got 2 at 16000 Hz"), ((100,), 8000, "got 1 at 8000 Hz")],
)
def test_a_file_that_is_not_mono_at_its_rate_is_named(tmp_path, shape, rate, match):
    soundfile.write(tmp_path / "a.wav", np.zeros(shape), rate)
    with pytest.raises(ValueError, match=f"a.wav.*{match}"):
        read_wav(tmp_path / "a.wav", 16000)


def test_a_file_that_is_missing_or_no_audio_is_named(tmp_path):
    (tmp_path / "text.wav").write_text("no audio")
    for name in ("text.wav", "absent.wav"):
        with pytest.raises(ValueError, match=f"{name}.*cannot be read"):
            read_wav(tmp_path / name, 16000)

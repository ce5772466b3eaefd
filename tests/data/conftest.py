"""Small sessions of tones that the tests of data/ share: real files and real Lhotse cuts, no voices."""

import numpy as np
import pytest
import soundfile
from lhotse import CutSet, MonoCut, Recording, SupervisionSegment
from lhotse.shar import SharWriter

from nemo_duplex.clock import FrameClock
from nemo_duplex.config import TokenizerConfig
from nemo_duplex.data.text_stream import train_tokenizer

CLOCK = FrameClock()
TEXTS = ["What is the capital of France?", "Paris is the capital.", "What color is snow?", "Snow is white."]


@pytest.fixture
def clock():
    return CLOCK


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory):
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    return train_tokenizer(TEXTS, 300, TokenizerConfig(path=str(path)))


def tone(seconds: float, rate: int, hertz: float = 220.0) -> np.ndarray:
    return (0.3 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


@pytest.fixture
def make_cut(tmp_path):
    """make_cut(name, seconds, ...) writes a session of one exchange and returns its cut, good unless it is told otherwise."""

    def make(name="one", seconds=4.0, agent_seconds=None, user=None, agent=None, text="Paris is the capital."):
        audio = {
            "user": tone(seconds, CLOCK.user_sample_rate) if user is None else user,
            "agent": tone(agent_seconds or seconds, CLOCK.agent_sample_rate) if agent is None else agent,
        }
        recordings = {}
        for party, rate in (("user", CLOCK.user_sample_rate), ("agent", CLOCK.agent_sample_rate)):
            path = tmp_path / f"{name}.{party}.wav"
            soundfile.write(path, audio[party], rate, subtype="FLOAT")
            recordings[party] = Recording.from_file(path, recording_id=f"{name}.{party}")
        turns = [
            SupervisionSegment(f"{name}-0", f"{name}.user", 0.0, 0.8, text=TEXTS[0], speaker="user"),
            SupervisionSegment(f"{name}-1", f"{name}.user", 1.6, 2.0, text=text, speaker="agent"),
        ]
        cut = recordings["user"].to_cut()
        cut.id, cut.supervisions, cut.target_audio = name, turns, recordings["agent"]
        return cut

    return make


@pytest.fixture
def with_codes():
    """with_codes(cut, frames) gives the cut codes of four codebooks that count frames: codes[t, q] = 10 t + q."""

    def add(cut: MonoCut, frames: int | None = None, dtype=np.int32) -> MonoCut:
        frames = CLOCK.frames_in(cut.duration) if frames is None else frames
        codes = (10 * np.arange(frames)[:, None] + np.arange(4)).astype(dtype)
        return cut.attach_tensor("agent_codes", codes, frame_shift=CLOCK.frame_s, temporal_dim=0)

    return add


@pytest.fixture
def make_shar(tmp_path, make_cut, with_codes):
    """make_shar(lengths in seconds) writes a Shar of such sessions, and returns shar_path without the agent's audio."""

    def make(lengths):
        folder = tmp_path / "shar"
        folder.mkdir()
        fields = {"recording": "wav", "target_audio": "wav", "agent_codes": "numpy"}
        with SharWriter(str(folder), fields=fields, shard_size=4) as writer:
            for index, seconds in enumerate(lengths):
                writer.write(with_codes(make_cut(f"session-{index}", seconds)))
        for path in folder.glob("target_audio*"):
            path.unlink()
        endings = {"cuts": "jsonl.gz", "recording": "tar", "agent_codes": "tar"}
        return {field: sorted(map(str, folder.glob(f"{field}.*.{ending}"))) for field, ending in endings.items()}

    return make


@pytest.fixture
def cut_set():
    return CutSet.from_cuts

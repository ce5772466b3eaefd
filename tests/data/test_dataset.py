import numpy as np
import pytest
import soundfile
import torch
from lhotse import Recording
from lhotse.features.io import NumpyFilesWriter
from omegaconf import OmegaConf

from nemo_duplex.clock import FrameClock
from nemo_duplex.data.dataset import DuplexDataset, make_loader
from nemo_duplex.data.text_stream import turns_in


@pytest.fixture
def dataset(tokenizer, clock):
    return DuplexDataset(tokenizer, clock)


def test_a_batch_is_padded_and_knows_its_lengths(dataset, make_cut, with_codes, cut_set, clock):
    batch = dataset[cut_set([with_codes(make_cut("short", 4.0)), with_codes(make_cut("long", 5.2))])]
    assert batch.ids == ["short", "long"] and batch.frames.tolist() == [50, 65]
    assert batch.mask.sum(1).tolist() == [50, 65]
    assert batch.user_audio.shape == (2, 65 * clock.user_hop) and batch.user_audio.dtype == torch.float32
    assert batch.agent_codes.shape == (2, 65, 4) and batch.agent_codes.dtype == torch.int64
    assert batch.agent_text.shape == (2, 65) and batch.agent_text.dtype == torch.int64
    assert not batch.user_audio[0, 50 * clock.user_hop :].any() and not batch.agent_codes[0, 50:].any()
    assert (batch.agent_text[0, 50:] == dataset.tokenizer.tokens.pad).all()


def test_ids_that_a_barge_in_left_unsaid_are_counted(dataset, make_cut, with_codes, cut_set):
    whole, cut = with_codes(make_cut("whole")), with_codes(make_cut("cut"))
    turn = cut.supervisions[1]
    turn.duration, turn.custom = 0.4, {"interrupted": True}  # five frames: BOS and four ids
    ids = len(dataset.tokenizer.encode(turn.text))
    assert dataset[cut_set([whole])].cut_tokens == 0
    assert dataset[cut_set([whole, cut])].cut_tokens == ids - 4 > 0


def test_a_row_holds_the_samples_the_codes_and_the_text_of_its_cut(dataset, make_cut, with_codes, cut_set):
    cut = make_cut("one", 4.0)
    samples = cut.load_audio()[0]
    batch = dataset[cut_set([with_codes(cut)])]
    assert np.array_equal(batch.user_audio[0].numpy(), samples)
    assert batch.agent_codes[0, :3].tolist() == [[0, 1, 2, 3], [10, 11, 12, 13], [20, 21, 22, 23]]
    ((start, end, ids),) = turns_in(batch.agent_text[0], dataset.tokenizer.tokens)
    assert (start, end, dataset.tokenizer.decode(ids)) == (20, 45, "Paris is the capital.")


def test_codes_without_a_time_axis_are_read_too(dataset, make_cut, cut_set):
    codes = np.arange(200).reshape(50, 4)
    batch = dataset[cut_set([make_cut("one", 4.0).attach_tensor("agent_codes", codes)])]
    assert np.array_equal(batch.agent_codes[0].numpy(), codes)


@pytest.mark.parametrize("temporal", [True, False])
@pytest.mark.parametrize("frames", [49, 51])
def test_streams_may_differ_by_one_frame(dataset, make_cut, with_codes, cut_set, frames, temporal, clock):
    cut = make_cut("one", 4.0)
    cut = with_codes(cut, frames) if temporal else cut.attach_tensor("agent_codes", np.zeros((frames, 4), int))
    batch = dataset[cut_set([cut])]
    assert batch.frames.tolist() == [min(frames, 50)]
    assert batch.user_audio.shape[1] == min(frames, 50) * clock.user_hop


def test_a_last_frame_that_is_not_full_is_padded_with_zeros(dataset, make_cut, with_codes, cut_set, clock):
    batch = dataset[cut_set([with_codes(make_cut("one", 4.05), 51)])]
    assert batch.frames.tolist() == [51] and batch.user_audio.shape == (1, 51 * clock.user_hop)
    assert not batch.user_audio[0, round(4.05 * 16000) :].any()


def test_a_part_of_a_session_is_read_in_step(dataset, make_cut, with_codes, cut_set, clock):
    cut = with_codes(make_cut("one", 4.0))
    samples = cut.load_audio()[0]
    batch = dataset[cut_set([cut.truncate(offset=0.8, duration=3.04)])]
    assert batch.frames.tolist() == [38] and batch.agent_codes[0, :2, 0].tolist() == [100, 110]
    assert np.array_equal(batch.user_audio[0].numpy(), samples[10 * clock.user_hop : 48 * clock.user_hop])
    ((start, end, _),) = turns_in(batch.agent_text[0], dataset.tokenizer.tokens)
    assert (start, end) == (10, 35)


def test_noise_that_the_loader_mixes_in_is_heard_and_changes_nothing_else(dataset, make_cut, with_codes, cut_set):
    cut, noise = with_codes(make_cut("one", 4.0)), make_cut("noise", 4.0)
    noise.supervisions = []
    clean, mixed = dataset[cut_set([cut])], dataset[cut_set([cut.mix(noise, snr=10)])]
    assert mixed.ids == ["one"] and mixed.frames.tolist() == [50]
    assert (mixed.user_audio - clean.user_audio).abs().max() > 0.01
    assert torch.equal(mixed.agent_text, clean.agent_text) and torch.equal(mixed.agent_codes, clean.agent_codes)


def without_codes(cut, with_codes):
    return cut


def two_frames_too_few(cut, with_codes):
    return with_codes(cut, 48)


def two_frames_too_many(cut, with_codes):
    return with_codes(cut, 52)


def codes_of_another_clock(cut, with_codes):
    return cut.attach_tensor("agent_codes", np.zeros((50, 4), int), frame_shift=0.04, temporal_dim=0)


def codes_in_one_column(cut, with_codes):
    return cut.attach_tensor("agent_codes", np.zeros(50, int))


def codes_of_floats(cut, with_codes):
    return with_codes(cut, dtype=np.float32)


def at_another_rate(cut, with_codes):
    return with_codes(cut.resample(8000))


def resampled_while_loading(cut, with_codes):
    path = cut.recording.sources[0].source
    soundfile.write(path, np.zeros(32000), 8000)
    cut.recording = Recording.from_file(path)
    return with_codes(cut.resample(16000))


def without_recording(cut, with_codes):
    cut = with_codes(cut)
    cut.recording = None
    return cut


def with_nan(cut, with_codes):
    path = cut.recording.sources[0].source
    soundfile.write(path, np.full(cut.recording.num_samples, np.nan), 16000, subtype="FLOAT")
    return with_codes(cut)


def long_text(cut, with_codes):
    cut.supervisions[1].text = "Paris is the capital. " * 9
    return with_codes(cut)


@pytest.mark.parametrize(
    ("spoil", "match"),
    [
        (without_codes, "has no agent_codes: make them with examples/duplex_encode_codes.py"),
        (two_frames_too_few, "user's audio has 50 frames and the agent's codes 48; expected at most one frame"),
        (two_frames_too_many, "user's audio has 50 frames and the agent's codes 52; expected at most one frame"),
        (codes_of_another_clock, "agent_codes have a frame every 0.04 s, the clock every 0.08 s"),
        (codes_in_one_column, r"agent_codes are int64 of shape \(50,\)"),
        (codes_of_floats, "agent_codes are float32 of shape .* whole numbers"),
        (at_another_rate, "recording is at 8000 Hz; expected 16000 Hz"),
        (resampled_while_loading, "stored at 8000 Hz and resampled while loading; expected 16000 Hz"),
        (without_recording, "has no recording"),
        (with_nan, "holds NaN or infinity"),
        (long_text, "agent turn 'bad-1' .* tokens and a BOS for 25 frames"),
    ],
)
def test_a_bad_cut_is_named(dataset, make_cut, with_codes, cut_set, spoil, match):
    with pytest.raises(ValueError, match=f"cut 'bad'.*{match}"):
        dataset[cut_set([with_codes(make_cut("good")), spoil(make_cut("bad"), with_codes)])]


def test_the_loader_batches_a_shar_by_length_without_the_agents_audio(dataset, make_shar):
    lengths = [4.0, 4.08, 4.16, 8.0, 8.08, 8.16]
    config = {
        "shar_path": make_shar(lengths),
        "batch_duration": 25.0,
        "bucket_duration_bins": [6.0],
        "shuffle": False,
        "shard_seed": 0,
        "force_finite": True,
        "concurrent_bucketing": False,
    }
    batches = list(make_loader(OmegaConf.create(config), dataset, 0, 1))
    assert sorted(name for batch in batches for name in batch.ids) == [f"session-{index}" for index in range(6)]
    for batch in batches:
        assert batch.frames.max() * 0.08 * len(batch.ids) <= 25.0 + 1e-6
        assert batch.frames.max() - batch.frames.min() <= 2
        for name, frames, codes in zip(batch.ids, batch.frames.tolist(), batch.agent_codes, strict=True):
            assert frames == round(lengths[int(name[-1])] / 0.08) and codes[frames - 1, 3] == 10 * (frames - 1) + 3
    assert max(len(batch.ids) for batch in batches) == 3


def test_a_shar_repeats_until_it_is_told_to_end(dataset, make_shar):
    config = {"shar_path": make_shar([4.0, 4.0]), "batch_size": 2, "shard_seed": 0}
    batches = iter(make_loader(config, dataset, 0, 1))
    assert [len(next(batches).ids) for _ in range(3)] == [2, 2, 2]


@pytest.fixture
def manifest_on_disk(make_cut, cut_set, tmp_path):
    """manifest_on_disk(frame_shift) writes four cuts with codes in files beside them (no Shar)."""

    def write(**temporal):
        cuts = [make_cut(f"s{index}") for index in range(4)]
        with NumpyFilesWriter(tmp_path / "codes") as storage:
            for cut in cuts:
                cut.agent_codes = storage.store_array(cut.id, np.zeros((50, 4), np.int32), **temporal)
        cut_set(cuts).to_file(tmp_path / "cuts.jsonl.gz")
        return {"cuts_path": str(tmp_path / "cuts.jsonl.gz"), "batch_size": 1, "shard_seed": 0, "force_finite": True}

    return write


def test_ranks_share_a_manifest_on_disk(dataset, manifest_on_disk):
    config = manifest_on_disk()
    seen = [{name for batch in make_loader(config, dataset, rank, 2) for name in batch.ids} for rank in (0, 1)]
    assert len(seen[0]) == len(seen[1]) == 2 and seen[0] | seen[1] == {"s0", "s1", "s2", "s3"}


def test_codes_that_nemo_loses_are_named(dataset, manifest_on_disk):
    config = manifest_on_disk(frame_shift=0.08, temporal_dim=0)
    with pytest.raises(ValueError, match="NeMo's loader has lost the agent_codes.*shar_path"):
        next(iter(make_loader(config, dataset, 0, 1)))


@pytest.mark.parametrize(
    ("config", "match"),
    [
        ({"shar_path": {}, "batch_sise": 2}, "does not know: batch_sise"),
        ({"shar_path": {}, "batch_size": 2, "sample_rate": 22050}, "sample_rate 22050.*user rate is 16000 Hz"),
        ({"multi_config": True, "a": {"batch_sise": 2}}, "does not know: batch_sise"),
        ({"a": {"batch_size": 2}}, "does not know: a"),
    ],
)
def test_a_key_that_nemo_would_ignore_is_an_error(dataset, config, match):
    with pytest.raises(ValueError, match=match):
        make_loader(config, dataset, 0, 1)


def test_the_loader_takes_its_rate_from_the_clock(tokenizer, make_cut, with_codes, cut_set, tmp_path):
    clock = FrameClock(user_sample_rate=8000)
    path = tmp_path / "eight.wav"
    soundfile.write(path, np.zeros(32000), 8000)
    cut = with_codes(make_cut("one"))
    cut.recording = Recording.from_file(path)
    with pytest.raises(ValueError, match="8000"):
        DuplexDataset(tokenizer, FrameClock())[cut_set([cut])]
    assert DuplexDataset(tokenizer, clock)[cut_set([cut])].user_audio.shape == (1, 50 * 640)

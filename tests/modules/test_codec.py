"""The codec: streamed == offline == NeMo's own decode, for every cut; causality; rows; files and what they must hold."""

import copy

import pytest
import torch
from nemo.collections.tts.models import AudioCodecModel
from nemo.collections.tts.modules.audio_codec_modules import CausalHiFiGANDecoder, HiFiGANDecoder
from omegaconf import open_dict
from tiny import CLOCK, cuts_of, tiny_codec_model

from nemo_duplex.clock import FrameClock
from nemo_duplex.modules.codec import Codec
from nemo_duplex.parts.checkpoint import UnsafeCheckpointError
from nemo_duplex.parts.codec_file import load_codec

FRAMES = 21


@pytest.fixture(scope="module")
def codec():
    """A tiny codec with two kernel sizes, two dilations and Snake activations, whose every code is heard."""
    codec = Codec(tiny_codec_model(), CLOCK)
    codec.model.audio_decoder = decoder(base_channels=64, resblock_kernel_sizes=(3, 7), resblock_dilation_sizes=(1, 3))
    return codec


def decoder(**sizes) -> CausalHiFiGANDecoder:
    torch.manual_seed(0)
    made = CausalHiFiGANDecoder(
        input_dim=16, up_sample_rates=(7, 7, 6, 3, 2), activation="half_snake", output_activation="clamp", **sizes
    )
    return made.eval().requires_grad_(False)


def random_codes(rows=2, frames=FRAMES, seed=1):
    return torch.randint(0, 4032, (rows, frames, 4), generator=torch.Generator().manual_seed(seed))


def nemo_decode(codec, codes):
    length = torch.full((codes.shape[0],), codes.shape[1])
    with torch.no_grad():
        return codec.model.decode(tokens=codes.transpose(1, 2), tokens_len=length)[0]


def streamed(codec, codes, cut):
    state, pieces = codec.initial_state(codes.shape[0]), []
    for start, end in cuts_of(codes.shape[1], cut):
        audio, state = codec(codes[:, start:end], state)
        pieces.append(audio)
    return torch.cat(pieces, dim=1)


def largest(a, b):
    return (a - b).abs().max().item()


@pytest.mark.parametrize("cut", [1, 3, 7, FRAMES])
def test_streamed_equals_nemo_offline(codec, cut):
    codes = random_codes()
    expected = nemo_decode(codec, codes)
    assert expected.shape == (2, FRAMES * CLOCK.agent_hop)
    assert expected.std() > 1e-3
    assert largest(streamed(codec, codes, cut), expected) <= 1e-5


def test_the_state_matters(codec):
    codes = random_codes()
    forgetful = torch.cat([codec(codes[:, t : t + 1])[0] for t in range(FRAMES)], dim=1)
    assert largest(forgetful, nemo_decode(codec, codes)) > 1e-3


def test_published_nanocodec_decoder():
    model = tiny_codec_model()
    model.audio_decoder = decoder(base_channels=864)
    codec, codes = Codec(model, CLOCK), random_codes(rows=1, frames=6)
    expected = nemo_decode(codec, codes)
    assert largest(streamed(codec, codes, 1), expected) <= 1e-5
    assert largest(streamed(codec, codes, 4), expected) <= 1e-5


def test_step_is_a_forward_of_one_frame_and_leaves_its_state_alone(codec):
    codes = random_codes()
    _, state = codec(codes[:, :5])
    before = copy.deepcopy(state)
    audio, after = codec.step(codes[:, 5], state)
    again, _ = codec(codes[:, 5:6], state)
    assert audio.shape == (2, CLOCK.agent_hop)
    assert torch.equal(audio, again)
    assert all(torch.equal(a, b) for a, b in zip(state.inputs + state.overlaps, before.inputs + before.overlaps, strict=True))
    assert any(not torch.equal(a, b) for a, b in zip(after.inputs, state.inputs, strict=True))


@pytest.mark.parametrize("frame", [1, 10, FRAMES - 1])
def test_a_code_is_not_heard_before_its_frame(codec, frame):
    codes = random_codes()
    changed = codes.clone()
    changed[:, frame] = (changed[:, frame] + 2000) % 4032
    difference = (codec(codes)[0] - codec(changed)[0]).abs().amax(0)
    assert difference[: frame * codec.hop].max() == 0
    assert difference[frame * codec.hop : (frame + 1) * codec.hop].max() > 1e-4


def test_rows_are_independent(codec):
    codes = random_codes(rows=3)
    together = codec(codes)[0]
    for row in range(3):
        assert largest(together[row], codec(codes[row : row + 1])[0][0]) <= 1e-5


def test_one_row_starts_again_while_the_others_go_on(codec):
    first, second = random_codes(seed=2), random_codes(seed=3)
    _, state = codec(first)
    state.copy_rows([1], codec.initial_state(2))
    audio, _ = codec(second, state)
    assert largest(audio[1], codec(second)[0][1]) <= 1e-5
    whole = codec(torch.cat([first, second], dim=1))[0]
    assert largest(audio[0], whole[0, FRAMES * codec.hop :]) <= 1e-5


def test_state_is_as_large_as_what_the_layers_look_back(codec):
    state = codec.initial_state(3)
    decoder = codec.model.audio_decoder
    assert state.inputs[0].shape == (3, 16, decoder.pre_conv.conv.kernel_size[0] - 1)
    assert [overlap.shape[2] for overlap in state.overlaps] == [7, 7, 6, 3, 2]
    assert state.nbytes() == 3 * codec.initial_state(1).nbytes()


def test_weights_loaded_later_are_the_ones_that_are_heard(codec):
    other, codes = Codec(tiny_codec_model(seed=1), CLOCK), random_codes(rows=1, frames=2)
    stale = Codec(tiny_codec_model(seed=2), CLOCK)
    stale(codes)
    torch.nn.Sequential(stale).load_state_dict(torch.nn.Sequential(other).state_dict())
    assert torch.equal(stale(codes)[0], other(codes)[0])


def test_precision_of_the_model_around_it_does_not_matter(codec):
    codes = random_codes(rows=1, frames=3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        audio, _ = codec(codes)
    assert audio.dtype == torch.float32
    assert torch.equal(audio, codec(codes)[0])


def test_encode_does_not_depend_on_the_batch(codec):
    generator = torch.Generator().manual_seed(0)
    audio = torch.randn(2, 20 * codec.hop, generator=generator) * 0.1
    samples = torch.tensor([9 * codec.hop - 5, 20 * codec.hop])
    codes = codec.encode(audio, samples)
    alone = codec.encode(audio[:1, : samples[0]], samples[:1])
    assert codes.shape == (2, 20, 4)
    assert codes.dtype == torch.int64
    assert alone.shape == (1, 9, 4)
    assert torch.equal(codes[0, :9], alone[0])
    assert codes.min() >= 0
    assert codes.max() < codec.codebook_size


def test_silence_has_the_codes_of_silence(codec):
    silence = codec.silence_codes()
    quiet = codec.encode(torch.zeros(1, 40 * codec.hop), torch.tensor([40 * codec.hop]))
    assert silence.shape == (4,)
    assert torch.equal(quiet[0, 20], silence)


def test_properties_and_modes(codec):
    assert (codec.codebooks, codec.codebook_size, codec.hop, codec.sample_rate) == (4, 4032, 1764, 22050)
    assert not codec.train().training
    assert not codec.model.audio_decoder.training
    assert not any(parameter.requires_grad for parameter in codec.parameters())


@pytest.mark.parametrize("code", [-1, 4032, 4036])
def test_control_codes_are_refused(codec, code):
    codes = random_codes()
    codes[1, 3, 2] = code
    with pytest.raises(ValueError, match=rf"{code}.*expected 0 to 4031.*silence_codes"):
        codec(codes)


def test_decoder_that_is_not_causal_is_refused():
    model = tiny_codec_model()
    model.audio_decoder = HiFiGANDecoder(input_dim=16, up_sample_rates=(7, 7, 6, 3, 2), base_channels=32)
    with pytest.raises(ValueError, match="HiFiGANDecoder; expected CausalHiFiGANDecoder: use a codec with"):
        Codec(model, CLOCK)


def test_decoder_that_trims_on_the_left_is_refused():
    model = tiny_codec_model()
    model.audio_decoder.up_sample_conv_layers[2].padding_left = 3
    with pytest.raises(ValueError, match="trims 3 samples on the left"):
        Codec(model, CLOCK)


@pytest.mark.parametrize(
    ("clock", "expected"), [(FrameClock(frame_ms=40), "882 samples"), (FrameClock(agent_sample_rate=24000), "24000 Hz")]
)
def test_frame_that_is_not_the_clocks_is_refused(clock, expected):
    with pytest.raises(ValueError, match=f"1764 samples in a frame.*{expected}.*frame_ms"):
        Codec(tiny_codec_model(), clock)


def test_codec_from_a_file(tmp_path, codec):
    path = str(tmp_path / "codec.nemo")
    model = tiny_codec_model(seed=3)
    model.save_to(path)
    codes = random_codes(rows=1, frames=2)
    assert torch.equal(load_codec(path, CLOCK)(codes)[0], Codec(model, CLOCK)(codes)[0])
    assert isinstance(AudioCodecModel.restore_from(path, map_location="cpu"), AudioCodecModel)


def test_file_that_lacks_weights_is_refused(tmp_path):
    path = str(tmp_path / "codec.nemo")
    model = tiny_codec_model()
    model.audio_decoder = decoder(base_channels=32, resblock_kernel_sizes=(3,), resblock_dilation_sizes=(1,))
    with open_dict(model.cfg):
        model.cfg.audio_decoder.resblock_dilation_sizes = [1, 3]
    model.save_to(path)
    with pytest.raises(ValueError, match="lacks .* weights, the first is 'audio_decoder"):
        load_codec(path, CLOCK)


def test_a_codec_file_that_names_another_class_is_refused(tmp_path):
    """A stranger's codec runs nothing of theirs."""
    path = str(tmp_path / "codec.nemo")
    model = tiny_codec_model()
    with open_dict(model.cfg):
        model.cfg.audio_encoder._target_ = "nemo.collections.asr.parts.utils.diarization_utils.write_txt"
    model.save_to(path)
    with pytest.raises(UnsafeCheckpointError, match=r"audio_encoder\._target_.*not one of the classes"):
        load_codec(path, CLOCK)

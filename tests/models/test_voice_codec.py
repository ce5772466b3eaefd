"""Training a codec on one voice: crops, stages, a run that learns and resumes, and a file that stock NeMo restores."""

import numpy as np
import pytest
import soundfile
import torch
from lhotse import CutSet
from lightning.pytorch import Trainer
from nemo.collections.tts.models import AudioCodecModel
from tiny import CLOCK, tiny_codec_model
from torch.utils.data import DataLoader

from nemo_duplex.config import VoiceCodecConfig, build
from nemo_duplex.data.manifest import utterance_cut, write_cuts
from nemo_duplex.data.utterances import VoiceCrops, WholeUtterances, read_utterances, speech_crop
from nemo_duplex.models.voice_codec import VoiceCodecModel, audio_codec_config, optimizer_steps
from nemo_duplex.parts.codec_file import load_codec

CROP = 4 * CLOCK.agent_hop
DISCRIMINATOR = {
    "_target_": "nemo.collections.tts.modules.audio_codec_modules.Discriminator",
    "discriminators": [
        {
            "_target_": "nemo.collections.tts.modules.encodec_modules.MultiResolutionDiscriminatorSTFT",
            "resolutions": [[512, 128, 512]],
        }
    ],
}


def tone(seconds, pitch):
    time = np.arange(int(seconds * CLOCK.agent_sample_rate)) / CLOCK.agent_sample_rate
    return (0.3 * np.sin(2 * np.pi * pitch * time)).astype(np.float32)


@pytest.fixture
def utterances(tmp_path):
    """Six tones as a manifest of utterances."""
    cuts = []
    for index in range(6):
        path = tmp_path / f"tone{index}.wav"
        soundfile.write(path, tone(0.8 + 0.1 * index, 150 + 30 * index), CLOCK.agent_sample_rate, subtype="PCM_16")
        cuts.append(utterance_cut(path, "a tone", CLOCK))
    write_cuts(cuts, tmp_path / "utterances.jsonl.gz")
    return str(tmp_path / "utterances.jsonl.gz")


def config_of(**changes):
    shape = tiny_codec_model().cfg
    codec = {key: shape[key] for key in ("audio_encoder", "audio_decoder", "loss_resolutions", "mel_loss_dims")}
    codec["optim"] = {"lr": 4e-3}
    return build(VoiceCodecConfig, {"codec": codec, "steps": 6, **changes})


def model_of(config, trainer=None):
    return VoiceCodecModel(audio_codec_config(config, CLOCK), CLOCK, config.base, trainer)


def fit(config, folder, utterances, **options):
    torch.manual_seed(0)
    train, held_out = read_utterances(utterances, "recording", 2, CLOCK)
    trainer = Trainer(
        accelerator="cpu",
        max_steps=optimizer_steps(config),
        default_root_dir=folder,
        num_sanity_val_steps=0,
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=1,
        **options,
    )
    model = model_of(config, trainer)
    crops = VoiceCrops(train, "recording", CROP, crops=6)
    trainer.fit(model, DataLoader(crops, batch_size=2), DataLoader(WholeUtterances(held_out, "recording"), batch_size=1))
    return model, trainer


def test_reconstruction_learns_and_saves_a_plain_codec(tmp_path, utterances):
    config = config_of(steps=40)
    model, trainer = fit(config, tmp_path, utterances, logger=False, enable_checkpointing=False)
    before = Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False)
    held_out = DataLoader(WholeUtterances(read_utterances(utterances, "recording", 2, CLOCK)[1], "recording"))
    untrained = before.validate(model_of(config), held_out, verbose=False)[0]["val_log_mel"]
    assert trainer.global_step == 40
    assert trainer.callback_metrics["val_log_mel"] < untrained - 0.1

    path = str(tmp_path / "voice.nemo")
    model.save_to(path)
    stock = AudioCodecModel.restore_from(path, map_location="cpu")
    assert type(stock) is AudioCodecModel
    assert stock.discriminator is None
    codes = torch.randint(0, 4032, (1, 4, 3))
    expected = model.eval().decode(tokens=codes, tokens_len=torch.tensor([3]))[0]
    assert torch.equal(stock.eval().decode(tokens=codes, tokens_len=torch.tensor([3]))[0], expected)
    assert torch.allclose(load_codec(path, CLOCK)(codes.transpose(1, 2))[0], expected, atol=1e-5)


def test_training_goes_on_from_a_checkpoint(tmp_path, utterances):
    first, _ = fit(config_of(steps=3), tmp_path, utterances, logger=False, enable_checkpointing=True)
    checkpoint = next(tmp_path.rglob("*.ckpt"))
    config = config_of(steps=3)
    again = Trainer(accelerator="cpu", max_steps=3, logger=False, enable_progress_bar=False, enable_model_summary=False)
    model = model_of(config, again)
    crops = DataLoader(VoiceCrops(read_utterances(utterances, "recording", 2, CLOCK)[0], "recording", CROP, 6), batch_size=2)
    again.fit(model, crops, ckpt_path=str(checkpoint))
    assert again.global_step == 3
    weights = first.state_dict()
    assert all(torch.equal(value, weights[key]) for key, value in model.state_dict().items())


def test_adversarial_stage_counts_both_optimizers(tmp_path, utterances):
    config = config_of(stage="adversarial", steps=3)
    config.codec.discriminator = DISCRIMINATOR
    model, trainer = fit(config, tmp_path, utterances, logger=False, enable_checkpointing=False)
    assert (trainer.global_step, trainer.fit_loop.total_batch_idx + 1) == (optimizer_steps(config), 3)
    assert any(key.startswith("discriminator") for key in model.state_dict())
    assert model.plain_model().discriminator is None


@pytest.mark.parametrize(("steps", "period", "expected"), [(10, 2, 15), (11, 2, 17), (10, 1, 20), (7, 3, 10)])
def test_optimizer_steps(steps, period, expected):
    config = config_of(stage="adversarial", steps=steps)
    config.codec.disc_update_period = period
    assert optimizer_steps(config) == expected


def test_base_gives_the_weights(tmp_path):
    path = str(tmp_path / "base.nemo")
    tiny_codec_model(seed=5).save_to(path)
    started = model_of(config_of(base=path)).state_dict()
    weights = tiny_codec_model(seed=5).state_dict()
    assert torch.equal(started["audio_decoder.pre_conv.conv.bias"], weights["audio_decoder.pre_conv.conv.bias"])


def test_base_of_another_shape_is_refused(tmp_path):
    path = str(tmp_path / "base.nemo")
    tiny_codec_model().save_to(path)
    config = config_of(base=path)
    config.codec.audio_decoder.base_channels = 64
    with pytest.raises(ValueError, match="base.nemo: its audio_decoder is not the one in `codec.audio_decoder`"):
        model_of(config)


def test_stages_and_their_discriminator():
    with pytest.raises(ValueError, match="stage 'gan'; expected one of reconstruction, adversarial"):
        audio_codec_config(config_of(stage="gan"), CLOCK)
    with pytest.raises(ValueError, match="adversarial.*needs `codec.discriminator`"):
        audio_codec_config(config_of(stage="adversarial"), CLOCK)
    config = config_of()
    config.codec.discriminator = DISCRIMINATOR
    assert audio_codec_config(config, CLOCK).discriminator is None


def test_crop_holds_speech_and_keeps_its_samples():
    audio = torch.zeros(20 * CROP)
    audio[5 * CROP : 5 * CROP + 600] = torch.linspace(0.1, 0.3, 600)
    starts = set()
    for seed in range(40):
        torch.manual_seed(seed)
        crop = speech_crop(audio, CROP)
        loud = torch.nonzero(crop)[:, 0]
        assert crop.shape == (CROP,)
        assert len(loud) > 0
        starts.add(int(loud[0]))
        assert crop[loud[0]] in audio
    assert len(starts) > 20


def test_crop_is_padded_past_both_ends():
    audio = torch.full((CROP // 2,), 0.5)
    for seed in range(10):
        torch.manual_seed(seed)
        crop = speech_crop(audio, CROP)
        assert crop.shape == (CROP,)
        assert 0 < (crop == 0.5).sum() <= CROP // 2
        assert ((crop == 0) | (crop == 0.5)).all()


def test_split_of_utterances(utterances):
    train, held_out = read_utterances(utterances, "recording", 2, CLOCK)
    assert [cut.id for cut in held_out] == ["tone1", "tone4"]
    assert [cut.id for cut in train] == ["tone0", "tone2", "tone3", "tone5"]


@pytest.mark.parametrize("held_out", [0, 6, 7])
def test_split_that_leaves_a_side_empty_is_refused(utterances, held_out):
    with pytest.raises(ValueError, match=f"held_out {held_out} of 6 utterances.*expected 1 to 5"):
        read_utterances(utterances, "recording", held_out, CLOCK)


def test_utterance_at_another_rate_is_refused(tmp_path, utterances):
    cut = CutSet.from_file(utterances)[0]
    other = tmp_path / "other.jsonl.gz"
    CutSet.from_cuts([cut.resample(16000), cut]).to_file(other)
    with pytest.raises(ValueError, match="cut 'tone0': recording is at 16000 Hz; expected 22050 Hz"):
        read_utterances(str(other), "recording", 1, CLOCK)
    with pytest.raises(ValueError, match="has no target_audio: set `audio_field`"):
        read_utterances(utterances, "target_audio", 1, CLOCK)

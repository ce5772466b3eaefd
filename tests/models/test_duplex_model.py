"""DuplexModel as NeMo knows it: `.nemo` round trip, self-contained and safe; loaders, optimizer, one real training step."""

import os
import subprocess
import sys
from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch
from nemo.core.classes import ModelPT
from omegaconf import OmegaConf
from tiny import random_batch, tiny_codec_model, tiny_model_config

from nemo_duplex.config import ModelConfig, SchedulerConfig, build
from nemo_duplex.models import DuplexModel
from nemo_duplex.parts.checkpoint import UnsafeCheckpointError
from nemo_duplex.streaming.engine import DuplexEngine

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("model")


@pytest.fixture(scope="module")
def model(home):
    torch.manual_seed(0)
    return DuplexModel(tiny_model_config(home)).eval()


@pytest.fixture(scope="module")
def saved(model, home):
    """The `.nemo`, with the files that it was made from deleted."""
    model.save_to(str(home / "saved.nemo"))
    os.remove(home / "codec.nemo")
    os.remove(home / "tokenizer.json")
    return str(home / "saved.nemo")


def answer(model, frames=6):
    engine = DuplexEngine.from_model(model)
    engine.join(0)
    audio = random_batch(1, frames).user_audio
    heard = [engine.step(audio[:, at : at + 1280])[0] for at in range(0, frames * 1280, 1280)]
    return torch.stack([frame.text for frame in heard]), torch.cat([frame.audio for frame in heard], 1)


def test_round_trip_gives_the_same_session(model, saved):
    restored = DuplexModel.restore_from(saved, map_location="cpu").eval()
    assert type(restored) is DuplexModel
    for before, after in zip(answer(model), answer(restored), strict=True):
        assert torch.equal(before, after)
    assert restored.tokenizer.decode(restored.tokenizer.encode("paris")) == "paris"


def test_a_restored_model_can_be_saved_again(model, saved, home):
    DuplexModel.restore_from(saved, map_location="cpu").save_to(str(home / "again.nemo"))
    again = DuplexModel.restore_from(str(home / "again.nemo"), map_location="cpu").eval()
    assert torch.equal(answer(model)[1], answer(again)[1])


def test_restores_in_a_new_process_and_directory_through_stock_nemo(model, saved, tmp_path):
    """`import nemo_duplex` is enough for ModelPT.restore_from; without it the message names the package."""
    code = f"""
import torch
from nemo.core.classes import ModelPT
try:
    ModelPT.restore_from({saved!r}, map_location="cpu")
except Exception as error:
    assert "nemo_duplex" in str(error), error
else:
    raise SystemExit("restored without the import")
import nemo_duplex
model = ModelPT.restore_from({saved!r}, map_location="cpu").eval()
print(type(model).__module__, float(model.net.heads.linear.weight.double().sum()))
"""
    run = [sys.executable, "-c", code]
    done = subprocess.run(
        run, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )  # noqa: S603
    assert done.returncode == 0, done.stderr[-2000:]
    name, total = done.stdout.split()[-2:]
    assert name == "nemo_duplex.models.duplex_model"
    assert float(total) == pytest.approx(float(model.net.heads.linear.weight.double().sum()), abs=1e-9)


def test_from_pretrained_takes_a_path(model, saved):
    restored = DuplexModel.from_pretrained(saved, map_location="cpu").eval()
    assert torch.equal(answer(model)[1], answer(restored)[1])
    with pytest.raises(FileNotFoundError, match="nowhere.nemo"):
        DuplexModel.from_pretrained("nowhere.nemo")
    assert DuplexModel.list_available_models() == []


def test_refuses_a_nemo_of_another_class(home):
    path = str(home / "other.nemo")
    tiny_codec_model().save_to(path)
    with pytest.raises(UnsafeCheckpointError, match=r"another class.*AudioCodecModel"):
        DuplexModel.restore_from(path)
    assert not ModelPT._is_model_being_restored()


def test_unknown_key_is_an_error_that_names_it(tmp_path):
    config = OmegaConf.create(OmegaConf.to_container(tiny_model_config(tmp_path)))
    config.backbone.hidden_size = 5
    with pytest.raises(ValueError, match="hidden_size"):
        DuplexModel(config)


def test_codec_path_is_needed(tmp_path):
    config = tiny_model_config(tmp_path)
    config.codec.path = None
    with pytest.raises(ValueError, match=r"codec\.path"):
        DuplexModel(config)


def test_codes_of_another_codec_are_refused(model):
    batch = random_batch()
    batch.agent_codes = batch.agent_codes[..., :3]
    with pytest.raises(ValueError, match="codes of 3 codebooks"):
        model.batch_loss(batch)


def test_trains_under_lightning_with_nemo_optimizer_and_keeps_the_codec(tmp_path):
    config = tiny_model_config(tmp_path)
    config.optim.sched = build(SchedulerConfig, {"name": "CosineAnnealing", "warmup_steps": 1})
    options = {"max_steps": 6, "accelerator": "cpu", "devices": 1, "enable_progress_bar": False}
    trainer = pl.Trainer(**options, logger=False, enable_checkpointing=False, log_every_n_steps=1)
    torch.manual_seed(0)
    model = DuplexModel(config, trainer)
    codec_before = {name: value.clone() for name, value in model.codec_model.state_dict().items()}
    before = float(model.batch_loss(random_batch()).total)
    model._train_dl = torch.utils.data.DataLoader([random_batch()] * 6, batch_size=None)
    model._optimizer_param_groups = None
    trainer.fit(model)
    assert float(model.batch_loss(random_batch()).total) < before - 0.05
    assert trainer.callback_metrics["train_text_loss"] > 0
    for name, value in model.codec_model.state_dict().items():
        assert torch.equal(value, codec_before[name])


def test_a_save_that_dies_leaves_the_old_file(saved, home, monkeypatch):
    model, path = DuplexModel.restore_from(saved, map_location="cpu"), home / "kept.nemo"
    model.save_to(str(path))
    size = path.stat().st_size
    monkeypatch.setattr(os, "replace", lambda *a: (_ for _ in ()).throw(OSError("disk")))
    with pytest.raises(OSError, match="disk"):
        model.save_to(str(path))
    assert path.stat().st_size == size
    assert list(home.glob("*.tmp")) == []


def test_default_model_section_is_the_papers():
    config = build(ModelConfig)
    assert (config.loss.text, config.loss.codebook, config.code_delay, config.fusion.user_weight) == (3.0, 1.0, 1, 1.0)

"""A model of one linear layer, one artifact and (optionally) a nested codec: what every real NeMo model has.

It is loaded under a name inside the package (`load`), where NeMo would look for a real model.
"""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import torch
from nemo.core.classes import ModelPT
from omegaconf import DictConfig, OmegaConf

from nemo_duplex.parts.checkpoint import DuplexSaveRestoreConnector

NAME = "nemo_duplex.stand_in"
TARGET = f"{NAME}.StandIn"


def load() -> ModuleType:
    """This module as `nemo_duplex.stand_in`."""
    if NAME not in sys.modules:
        spec = importlib.util.spec_from_file_location(NAME, __file__)
        sys.modules[NAME] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[NAME])
    return sys.modules[NAME]


class StandIn(ModelPT):
    def __init__(self, cfg: DictConfig, trainer=None):
        super().__init__(cfg=cfg, trainer=trainer)
        self.layer = torch.nn.Linear(cfg.width, cfg.width)
        with open(self.register_artifact("tokenizer.path", cfg.tokenizer.path), encoding="utf-8") as file:
            self.words = file.read()
        if cfg.codec.model is not None:
            from nemo.collections.tts.models import AudioCodecModel

            self.register_nemo_submodule("codec", "codec.model", AudioCodecModel(cfg.codec.model))

    def setup_training_data(self, train_data_config):
        """No data."""

    def setup_validation_data(self, val_data_config):
        """No data."""

    @classmethod
    def list_available_models(cls):
        return []


def connector() -> DuplexSaveRestoreConnector:
    """Ours, for files of this class."""
    return DuplexSaveRestoreConnector(TARGET)


def built(folder: Path, codec: dict | None = None) -> StandIn:
    """A new model that saves with our connector."""
    (folder / "words.txt").write_text("hello")
    values = {"width": 4, "tokenizer": {"path": str(folder / "words.txt")}, "codec": {"path": None, "model": codec}}
    model = load().StandIn(OmegaConf.create(values | {"train_ds": None, "note": ""}))
    model._save_restore_connector = connector()
    return model

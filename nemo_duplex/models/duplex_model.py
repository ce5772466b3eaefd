"""DuplexModel: NeMo's ModelPT around the net: net + loss + optimizer + loaders, nothing else.

    .nemo = model_config.yaml + weights (net and codec) + tokenizer.json        self-contained, no path of any machine

Boundary: what happens on the clock is in modules/; streaming is in streaming/; safe files are in parts/checkpoint.py.
"""

import copy
import os

import torch
from lightning.pytorch import Trainer
from nemo.collections.tts.models.audio_codec import AudioCodecModel
from nemo.core.classes import ModelPT
from nemo.core.classes.common import PretrainedModelInfo
from nemo.core.connectors.save_restore_connector import SaveRestoreConnector
from nemo.package_info import __version__ as nemo_version
from nemo.utils import AppState
from omegaconf import DictConfig, OmegaConf

from nemo_duplex.config import ModelConfig, build, clock_from
from nemo_duplex.data.dataset import DuplexDataset, make_loader
from nemo_duplex.data.text_stream import TextTokenizer
from nemo_duplex.losses.duplex_loss import DuplexLoss, DuplexLossParts
from nemo_duplex.modules.codec import Codec
from nemo_duplex.modules.delay import to_streams
from nemo_duplex.modules.duplex_net import DuplexNet
from nemo_duplex.parts.checkpoint import DuplexSaveRestoreConnector, check_model_config
from nemo_duplex.parts.codec_file import load_codec
from nemo_duplex.streams import DuplexBatch
from nemo_duplex.tokens import CodeTokens


class DuplexModel(ModelPT):
    """A model that listens while it speaks. Build it from a config, or restore it.

    Args:
        cfg: a `ModelConfig` section (nemo_duplex/config.py), every key known.
        trainer: Lightning's trainer, for training.

    Attributes:
        config: the full configuration; net: DuplexNet; codec_model: NeMo's codec (frozen); tokenizer: TextTokenizer;
        clock: FrameClock.

    Raises:
        ValueError: for an unknown key, or a codec or tokenizer that does not fit.
    """

    def __init__(self, cfg: DictConfig, trainer: Trainer | None = None):
        restoring = ModelPT._is_model_being_restored()
        if restoring and AppState().nemo_file_folder is not None:  # a .nemo, by whichever connector; not a .ckpt
            check_model_config(cfg)
        config = build(ModelConfig, cfg)
        config.target, config.nemo_version = f"{type(self).__module__}.{type(self).__qualname__}", nemo_version
        sources = {name: copy.deepcopy(config[name]) for name in ("train_ds", "validation_ds")}
        for name in sources:
            config[name] = None  # NeMo would build the loaders before the modules
        super().__init__(cfg=config, trainer=trainer)
        self._save_restore_connector = DuplexSaveRestoreConnector()
        self.config = self.cfg
        self.clock = clock_from(config.clock)
        self.tokenizer = self._open_tokenizer()
        self.register_nemo_submodule("codec_model", "codec_model", self._open_codec())
        self.code_tokens = CodeTokens(self.codec_model.codebook_size)
        self.net = DuplexNet(
            config,
            self.clock,
            self.tokenizer.tokens,
            self.tokenizer.vocabulary,
            self.codec_model.num_codebooks,
            self.code_tokens,
        )
        self.loss = DuplexLoss(config.loss, self.tokenizer.tokens)
        if not restoring:
            self._open_sources(sources)

    def _open_tokenizer(self) -> TextTokenizer:
        path = self.register_artifact("tokenizer.path", self.cfg.tokenizer.path)
        return TextTokenizer(OmegaConf.merge(self.cfg.tokenizer, {"path": path}))

    def _open_codec(self) -> AudioCodecModel:
        """The codec that the config carries, else the one that `codec.path` names; its training parts are left behind."""
        if self.cfg.codec_model is not None:
            return Codec(AudioCodecModel(cfg=self.cfg.codec_model), self.clock).model
        if self.cfg.codec.path is None:
            raise ValueError("codec.path is empty: name the .nemo of an AudioCodecModel, or a published one")
        codec = load_codec(self.cfg.codec.path, self.clock)
        self.cfg.codec.path = None
        return codec.model

    def _open_sources(self, sources: dict) -> None:
        for name, setup in (("train_ds", self.setup_training_data), ("validation_ds", self.setup_validation_data)):
            if sources[name] is not None:
                setup(sources[name])

    @property
    def codec(self) -> Codec:
        """The frame-wise codec: a new view of `codec_model`, at its present device."""
        return Codec(self.codec_model, self.clock)

    def training_step(self, batch: DuplexBatch, batch_index: int) -> torch.Tensor:
        loss = self.batch_loss(batch)
        self._log_parts("train", loss, batch)
        self.log("train_cut_tokens", float(batch.cut_tokens))
        self.log("lr", self._optimizer.param_groups[0]["lr"], prog_bar=False)
        return loss.total

    def validation_step(self, batch: DuplexBatch, batch_index: int, dataloader_idx: int = 0) -> torch.Tensor:
        loss = self.batch_loss(batch)
        self._log_parts("val", loss, batch)
        return loss.total

    def batch_loss(self, batch: DuplexBatch) -> DuplexLossParts:
        """Teacher-forced loss of one batch.

        Raises:
            ValueError: when the batch's codes are not of this model's codec.
        """
        codebooks, size = batch.agent_codes.shape[-1], int(batch.agent_codes.max()) + 1
        if codebooks != self.codec_model.num_codebooks or size > self.code_tokens.size:
            raise ValueError(
                f"sessions {batch.ids[:3]}: codes of {codebooks} codebooks up to {size - 1}; the model's codec has "
                f"{self.codec_model.num_codebooks} of {self.code_tokens.size}: encode the cuts with the model's codec"
            )
        streams = to_streams(
            batch, self.cfg.code_delay, self.cfg.code_boundaries, self.tokenizer.tokens, self.code_tokens
        )
        return self.loss(self.net(batch.user_audio, streams.text_input, streams.codes_input), streams)

    def _log_parts(self, stage: str, loss: DuplexLossParts, batch: DuplexBatch) -> None:
        values = {
            f"{stage}_loss": loss.total,
            f"{stage}_text_loss": loss.text,
            f"{stage}_codes_loss": loss.codes.mean(),
        }
        self.log_dict(
            values, prog_bar=True, batch_size=len(batch.ids), on_step=stage == "train", on_epoch=stage == "val"
        )

    def transfer_batch_to_device(self, batch: DuplexBatch, device: torch.device, dataloader_idx: int) -> DuplexBatch:
        return batch.to(device)

    def _dataset(self) -> DuplexDataset:
        return DuplexDataset(self.tokenizer, self.clock)

    def _loader(self, config: DictConfig):
        return make_loader(config, self._dataset(), self.global_rank, self.world_size)

    def setup_training_data(self, train_data_config: DictConfig) -> None:
        """Opens a loader by NeMo's Lhotse config (Shar, bucketing, batch_duration)."""
        self._train_dl = self._loader(train_data_config)
        self.cfg.train_ds = train_data_config

    def setup_validation_data(self, val_data_config: DictConfig) -> None:
        """As setup_training_data, for validation."""
        self._validation_dl = self._loader(val_data_config)
        self.cfg.validation_ds = val_data_config

    def setup_optimizer_param_groups(self) -> None:
        """The trainable parameters only: the codec is frozen."""
        self._optimizer_param_groups = [{"params": [p for p in self.parameters() if p.requires_grad]}]

    @classmethod
    def list_available_models(cls) -> list[PretrainedModelInfo]:
        """Published models. None yet: the demo and the recipes make theirs."""
        return []

    @classmethod
    def restore_from(
        cls, restore_path: str, *args, save_restore_connector: SaveRestoreConnector | None = None, **kwargs
    ):
        """As NeMo's restore_from, through the connector that refuses what a stranger's file must not do."""
        connector = save_restore_connector or DuplexSaveRestoreConnector()
        return super().restore_from(restore_path, *args, save_restore_connector=connector, **kwargs)

    @classmethod
    def from_pretrained(
        cls, model_name: str, *args, save_restore_connector: SaveRestoreConnector | None = None, **kwargs
    ):
        """A model by path (`x.nemo`), by its name in `list_available_models`, or by its Hugging Face name `owner/name`.

        Raises:
            FileNotFoundError: when a path ends in .nemo and is not there.
        """
        connector = save_restore_connector or DuplexSaveRestoreConnector()
        if model_name.endswith(".nemo"):
            if not os.path.isfile(model_name):
                raise FileNotFoundError(
                    f"{os.path.abspath(model_name)}: no such file; give the path of a .nemo or a published name"
                )
            return cls.restore_from(model_name, *args, save_restore_connector=connector, **kwargs)
        return super().from_pretrained(model_name, *args, save_restore_connector=connector, **kwargs)

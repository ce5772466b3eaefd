"""Saves and restores `.nemo` files: a file from a stranger runs none of their code, a kill never leaves half a file.

    save     folder of NeMo's own connector -> drop what belongs to this machine -> check -> temporary file -> rename
    restore  check the file -> NeMo's own connector, given the checked config -> check the weights -> the class asked for

Files stay NeMo's: after `import nemo_duplex` the stock connector restores them too (then without these checks; a model
runs `check_model_config` by itself). Boundary: the connector; what is refused, and why, is in checkpoint_checks.py.
"""

import os
import shutil
import tarfile
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO

import torch
from nemo.core.connectors.save_restore_connector import SaveRestoreConnector
from nemo.utils.msc_utils import is_multistorageclient_url
from omegaconf import DictConfig, OmegaConf

from nemo_duplex.parts.checkpoint_checks import (
    CODEC_MODEL,
    CODEC_TARGETS,
    DUPLEX_MODEL,
    WEIGHTS_NAME,
    UnsafeCheckpointError,
    check_model_config,
    check_weights,
    open_archive,
    read_config,
    read_weights,
    require,
)

__all__ = [
    "CODEC_MODEL",
    "CODEC_TARGETS",
    "CheckpointSummary",
    "DuplexSaveRestoreConnector",
    "UnsafeCheckpointError",
    "check_model_config",
    "verify_checkpoint",
]

# Sections that describe the data and the disk of whoever trained. No restore needs them: neither written nor read.
LOCAL_SECTIONS = frozenset(["train_ds", "validation_ds", "test_ds", "log_config"])


class DuplexSaveRestoreConnector(SaveRestoreConnector):
    """NeMo's connector, with every file checked before use and written in one piece.

    Args:
        expected: class path that a file must hold (its `target`).
        allowed: class paths that the config of a nested model may name.
        left_out: sections of the config that are emptied before the check, beside those of the trainer's machine.
    """

    def __init__(
        self,
        expected: str = DUPLEX_MODEL,
        allowed: frozenset[str] = CODEC_TARGETS,
        left_out: frozenset[str] = frozenset(),
    ):
        super().__init__()
        self.expected = expected
        self.allowed = allowed
        self.left_out = LOCAL_SECTIONS | left_out

    def restore_from(self, calling_cls, *args, **kwargs):
        """As NeMo's. After a refusal the next model is built as usual (NeMo would take it for a restored one).

        Raises:
            UnsafeCheckpointError: naming what in the file is refused, and why.
        """
        try:
            return super().restore_from(calling_cls, *args, **kwargs)
        finally:
            calling_cls._set_model_restore_state(is_being_restored=False)

    def load_config_and_state_dict(
        self, calling_cls, restore_path, override_config_path=None, *args, return_config=False, **kwargs
    ):
        """As NeMo's, with the config that was checked, and no other, unless the caller gives one."""
        require(self.model_extracted_dir is None, "an extracted folder is not checked: give the .nemo file itself")
        config = self._checked_config(restore_path)
        if return_config:
            return config
        chosen = config if override_config_path is None else override_config_path
        return super().load_config_and_state_dict(calling_cls, restore_path, chosen, *args, **kwargs)

    def _checked_config(self, path: str) -> DictConfig:
        config = _without(self.left_out, read_config(path))
        check_model_config(config, self.expected, self.allowed)
        return OmegaConf.create(config)

    def _filtered_tar_info(
        self, tar_path: str, filter_fn: Callable[[str], bool] | None = None
    ) -> list[tarfile.TarInfo]:
        with open_archive(tar_path) as (_, members):
            return [member for member in members.values() if filter_fn is None or filter_fn(member.name)]

    def _unpack_nemo_file(self, path2file: str, out_folder: str, members: list | None = None) -> str:
        wanted = None if members is None else {getattr(member, "name", member) for member in members}
        with open_archive(path2file) as (tar, found):
            for name, member in found.items():
                if wanted is None or member.name in wanted:
                    with open(os.path.join(out_folder, name), "xb") as file:
                        shutil.copyfileobj(tar.extractfile(member), file)
        return out_folder

    def _load_state_dict_from_disk(self, model_weights: str, map_location=None) -> dict[str, torch.Tensor]:
        return read_weights(model_weights)

    def _save_state_dict_to_disk(self, state_dict: dict[str, torch.Tensor], filepath: str) -> None:
        check_weights(state_dict)
        torch.save(state_dict, filepath)

    def _make_nemo_file_from_folder(self, filename: str, source_dir: str) -> None:
        self._finish_config(os.path.join(source_dir, self.model_config_yaml))
        if is_multistorageclient_url(filename):
            super()._make_nemo_file_from_folder(filename, source_dir)
            return
        with written_whole(filename) as file, tarfile.open(fileobj=file, mode="w:") as tar:
            for name in sorted(os.listdir(source_dir)):
                tar.add(os.path.join(source_dir, name), arcname=f"./{name}", filter=_without_owner)

    def _finish_config(self, path: str) -> None:
        """Drops what belongs to this machine, and refuses now what a restore would refuse later."""
        config = _without(self.left_out, OmegaConf.to_container(OmegaConf.load(path)))
        check_model_config(config, self.expected, self.allowed)
        OmegaConf.save(OmegaConf.create(config), path)


def _without(sections: frozenset[str], node: Any) -> Any:
    """The same config with these sections empty, also in the configs inside it."""
    if isinstance(node, dict):
        return {key: None if key in sections else _without(sections, value) for key, value in node.items()}
    return [_without(sections, value) for value in node] if isinstance(node, list) else node


def _without_owner(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid, member.gid, member.uname, member.gname = 0, 0, "", ""
    return member


@contextmanager
def written_whole(path: str) -> Iterator[BinaryIO]:
    """A file that takes the place of `path` only when all of it is on the disk. A kill leaves the old file, or none."""
    folder = os.path.dirname(os.path.abspath(path))
    os.makedirs(folder, exist_ok=True)
    temporary = os.path.join(folder, f".{os.path.basename(path)}.{uuid.uuid4().hex}.tmp")
    try:
        with open(temporary, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        if os.path.exists(temporary):
            os.remove(temporary)
    _sync_folder(folder)


def _sync_folder(folder: str) -> None:
    """Makes a rename in `folder` outlive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@dataclass(frozen=True)
class CheckpointSummary:
    """What a sound `.nemo` holds."""

    target: str
    files: dict[str, int]
    weights: int
    values: int


def verify_checkpoint(
    path: str, expected: str = DUPLEX_MODEL, allowed: frozenset[str] = CODEC_TARGETS
) -> CheckpointSummary:
    """Runs every check of a restore on a `.nemo` without building the model.

    Raises:
        UnsafeCheckpointError: naming what in the file is refused, and why.
    """
    connector = DuplexSaveRestoreConnector(expected, allowed)
    config = connector._checked_config(path)
    with tempfile.TemporaryDirectory() as folder:
        members = connector._filtered_tar_info(path)
        connector._unpack_nemo_file(path, folder)
        weights = read_weights(os.path.join(folder, WEIGHTS_NAME))
    files = {member.name.removeprefix("./"): member.size for member in members}
    tensors = [value for value in weights.values() if value is not None]
    return CheckpointSummary(config.target, files, len(tensors), sum(value.numel() for value in tensors))

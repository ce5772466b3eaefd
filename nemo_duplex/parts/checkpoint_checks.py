"""What a `.nemo` from a stranger may hold; everything else is refused by name before anything is built from it.

    file -> tar: plain, flat, regular files, no name twice  -> config: plain YAML, only known classes, no paths
                                                            -> weights: stored zip, tensors only, whole and finite

Boundary: reads and judges; builds no model and imports no NeMo (the connector is in checkpoint.py).
"""

import os
import pickle
import re
import struct
import tarfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from torch import Tensor

DUPLEX_MODEL = "nemo_duplex.models.duplex_model.DuplexModel"
CODEC_MODEL = "nemo.collections.tts.models.audio_codec.AudioCodecModel"
_MODULES, _LOSSES = "nemo.collections.tts.modules.", "nemo.collections.tts.losses.audio_codec_loss."
# Classes that take numbers and names and neither read, write nor download (SLMDiscriminator and SLMEncoder download).
CODEC_TARGETS = frozenset(
    [
        CODEC_MODEL,
        _MODULES + "audio_codec_modules.HiFiGANEncoder",
        _MODULES + "audio_codec_modules.MultiResolutionSTFTEncoder",
        _MODULES + "audio_codec_modules.CausalHiFiGANDecoder",
        _MODULES + "audio_codec_modules.GroupFiniteScalarQuantizer",
        _MODULES + "audio_codec_modules.FiniteScalarQuantizer",
        _MODULES + "audio_codec_modules.Discriminator",
        _MODULES + "audio_codec_modules.MultiPeriodDiscriminator",
        _MODULES + "audio_codec_modules.MultiBandDiscriminatorSTFT",
        _MODULES + "audio_codec_modules.MultiResolutionDiscriminatorSTFT",
        _MODULES + "encodec_modules.MultiResolutionDiscriminatorSTFT",
        _LOSSES + "GeneratorSquaredLoss",
        _LOSSES + "DiscriminatorSquaredLoss",
        "torch.optim.Adam",
        "torch.optim.AdamW",
    ]
)
CONFIG_NAME, WEIGHTS_NAME = "model_config.yaml", "model_weights.ckpt"
# Files of the `.nemo` that the config names; a local path here would be read, and packed into the next save.
ARTIFACT_KEYS = frozenset(["tokenizer.path"])
# Keys that make NeMo or Hugging Face fetch something, run a checkpoint's code or (cls, params: Hydra 0.x) rewrite the
# config after this check; in a file they must be empty or false.
OFF_KEYS = frozenset(
    ["trust_remote_code", "codec.path", "semantic_codec_path", "use_scl_loss", "use_slm_loss", "cls", "params"]
)
TARGET_KEYS = frozenset(["target", "_target_"])
MAX_MEMBERS, MAX_CONFIG_BYTES, MAX_BYTES, MAX_DEPTH = 64, 256 << 10, 64 << 30, 40
_OUTSIDE = re.compile(r"\$\{|://|\x00|^pipe:|^[/\\~]|^[A-Za-z]:[\\/]|(^|[\\/:])\.\.([\\/]|$)")
_FLAT = re.compile(r"[^./\\\x00][^/\\\x00]*")
_ARTIFACT = re.compile(r"nemo:[^/\\]+")
# What damaged or hostile bytes make tarfile, zipfile, PyYAML, OmegaConf and torch's restricted unpickler raise.
_FORMATS = (tarfile.TarError, zipfile.BadZipFile, pickle.UnpicklingError, yaml.YAMLError, OmegaConfBaseException)
_PYTHON = (struct.error, EOFError, RuntimeError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError)
_DAMAGE = (*_FORMATS, *_PYTHON, AssertionError)


class UnsafeCheckpointError(ValueError):
    """A checkpoint that is refused; the message says what in it, and why. Nothing of it has been built or run."""


def require(fine: Any, reason: str) -> None:
    """Refuses the checkpoint with `reason` unless `fine`."""
    if not fine:
        raise UnsafeCheckpointError(reason)


@contextmanager
def _damage_refused(what: str, *more: type[Exception]) -> Iterator[None]:
    try:
        yield
    except UnsafeCheckpointError:
        raise
    except (*_DAMAGE, *more) as error:
        raise UnsafeCheckpointError(f"{what}: {type(error).__name__}: {error}") from error


@contextmanager
def open_archive(path: str) -> Iterator[tuple[tarfile.TarFile, dict[str, tarfile.TarInfo]]]:
    """Opens a `.nemo` and checks every member in one pass; gives the tar and its files by name."""
    with _damage_refused(f"{path} is not a whole, plain tar"), tarfile.open(path, mode="r:") as tar:
        members = _checked_members(tar, os.path.getsize(path))
        for name in (CONFIG_NAME, WEIGHTS_NAME):
            require(name in members, f"{path} has no {name}")
        require(members[CONFIG_NAME].size <= MAX_CONFIG_BYTES, f"{CONFIG_NAME} is over {MAX_CONFIG_BYTES} bytes")
        yield tar, members


def _checked_members(tar: tarfile.TarFile, file_bytes: int) -> dict[str, tarfile.TarInfo]:
    members, total = {}, 0
    for count, member in enumerate(tar, 1):
        require(count <= MAX_MEMBERS, f"more than {MAX_MEMBERS} members")
        name = member.name.removeprefix("./")
        if member.isdir() and name in (".", ""):
            continue
        regular = member.type in (tarfile.REGTYPE, tarfile.AREGTYPE) and member.sparse is None
        require(regular, f"member {member.name!r} is not a regular file")
        require(_FLAT.fullmatch(name), f"member {member.name!r} does not lie flat in the archive")
        require(name not in members, f"member {name!r} is there twice")
        total += member.size
        possible = member.size >= 0 and total <= min(MAX_BYTES, file_bytes)
        require(possible, f"member {name!r}: size {member.size} is not possible")
        members[name] = member
    return members


def read_config(path: str) -> dict:
    """The config of a `.nemo`, from plain YAML (no aliases, no tags, no interpolations); not judged yet."""
    with open_archive(path) as (tar, members), _damage_refused(CONFIG_NAME):
        text = tar.extractfile(members[CONFIG_NAME]).read().decode("utf-8")
        _check_yaml(text)
        config = OmegaConf.to_container(OmegaConf.create(text))
        require(isinstance(config, dict), f"{CONFIG_NAME} is not a mapping")
        return config


def _check_yaml(text: str) -> None:
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        require(not isinstance(event, yaml.AliasEvent), f"{CONFIG_NAME}: a YAML alias (a few of them fill any memory)")
        tag, value = getattr(event, "tag", None), getattr(event, "value", "")
        require(tag is None, f"{CONFIG_NAME}: the YAML tag {tag}")
        require("${" not in value, f"{CONFIG_NAME}: the interpolation {value[:60]!r}")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        require(depth <= MAX_DEPTH, f"{CONFIG_NAME}: nested deeper than {MAX_DEPTH}")


def check_model_config(
    config: dict | DictConfig, expected: str = DUPLEX_MODEL, allowed: frozenset[str] = CODEC_TARGETS
) -> None:
    """Refuses a restored config that could read, fetch or run anything outside its own `.nemo`.

    Args:
        config: the model's config as the file has it, artifacts still as `nemo:NAME`.
        expected: class path that `target` must name.
        allowed: class paths that may stand under a nested `target` or `_target_`.

    Raises:
        UnsafeCheckpointError: naming the key, the value and the reason.
    """
    values = OmegaConf.to_container(config, resolve=False) if isinstance(config, DictConfig) else config
    target = values.get("target")
    require(
        target == expected, f"a .nemo of another class: expected {expected}, got {target!r}; restore it with that class"
    )
    for name in ("model", "_target_"):
        require(name not in values, f"config key {name!r}: NeMo would use this in place of the model's own config")
    for key, value in _nodes({name: value for name, value in values.items() if name != "target"}, "", 0):
        reason = _reason_against(key, value, allowed)
        require(not reason, f"config key {key!r}: {reason}: {str(value)[:80]!r}")


def _nodes(node: Any, key: str, depth: int) -> Iterator[tuple[str, Any]]:
    """Every key (as text) and value below `node`, with list items under their list's key."""
    require(depth <= MAX_DEPTH, f"config key {key!r}: nested deeper than {MAX_DEPTH}")
    if isinstance(node, dict):
        for name, value in node.items():
            path = f"{key}.{name}" if key else str(name)
            yield f"{path} (its name)", str(name)
            yield path, value
            yield from _nodes(value, path, depth + 1)
    elif isinstance(node, (list, tuple)):
        for value in node:
            yield key, value
            yield from _nodes(value, key, depth + 1)


def _reason_against(key: str, value: Any, allowed: frozenset[str]) -> str | None:
    name = key.rsplit(".", 1)[-1]
    if name in TARGET_KEYS and (not isinstance(value, str) or value not in allowed):
        return "not one of the classes that a codec is made of"
    if (name in OFF_KEYS or key in OFF_KEYS) and value:
        return "must be empty or false in a checkpoint"
    if key in ARTIFACT_KEYS and value and not (isinstance(value, str) and _ARTIFACT.fullmatch(value)):
        return "expected nemo:NAME, a file of the .nemo itself"
    if isinstance(value, str) and _OUTSIDE.search(value):
        return "reaches outside the .nemo (a path, an address or an interpolation)"
    if isinstance(value, str) and value.startswith("nemo:") and not _ARTIFACT.fullmatch(value):
        return "expected nemo:NAME"
    return None


def read_weights(path: str) -> dict[str, Tensor]:
    """The weights of an extracted file, on the CPU, after all checks. The environment cannot switch the checks off."""
    with _damage_refused(WEIGHTS_NAME, OSError):  # OSError: a record that starts before the file does
        with zipfile.ZipFile(path) as archive:
            records = archive.infolist()
            require(all(item.compress_type == zipfile.ZIP_STORED for item in records), "a record is compressed")
            require(sum(item.file_size for item in records) <= os.path.getsize(path), "its records overlap")
            damaged = archive.testzip()
            require(damaged is None, f"record {damaged!r} does not match its checksum: the file is damaged")
        weights = torch.load(path, map_location="cpu", weights_only=True)
        check_weights(weights)
    return weights


def check_weights(weights: dict[str, Tensor | None]) -> None:
    """Refuses anything but whole, finite, dense tensors, naming the weight.

    Megatron's `_extra_state` must be None: with a value in it, TransformerEngine would unpickle that without a check.
    """
    require(isinstance(weights, dict), f"expected a dictionary of tensors, got {type(weights).__name__}")
    for name, value in weights.items():
        if str(name).endswith("_extra_state"):
            require(value is None, f"weight {name!r}: expected None, got {type(value).__name__}, which could run code")
        else:
            _check_weight(name, value)


def _check_weight(name: str, value: Tensor) -> None:
    plain = type(value) in (Tensor, torch.nn.Parameter) and value.layout is torch.strided and not value.is_meta
    require(isinstance(name, str) and plain, f"weight {name!r}: expected a dense tensor, got {type(value).__name__}")
    held = value.untyped_storage().nbytes()
    require(value.numel() * value.element_size() <= held, f"weight {name!r}: larger than what the file holds")
    whole = not (value.is_floating_point() or value.is_complex()) or torch.isfinite(value).all()
    require(whole, f"weight {name!r} has values that are not finite")

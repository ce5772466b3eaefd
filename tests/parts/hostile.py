"""Files that a stranger could send: each kind takes the members of a sound `.nemo` and writes a bad one.

`KINDS` maps a name to (writer, what the refusal must say). Every payload would run `PAYLOAD`, whose trace a test can see.
"""

import io
import os
import tarfile
import zipfile
from pathlib import Path

import torch
import yaml

CONFIG, WEIGHTS = "model_config.yaml", "model_weights.ckpt"
TRACE = "hostile_payload_ran"
PAYLOAD = f"touch {TRACE}"
WRITE_TEXT = "nemo.collections.asr.parts.utils.diarization_utils.write_txt"
AUTO_TOKENIZER = "nemo.collections.common.tokenizers.huggingface.auto_tokenizer.AutoTokenizer"


class Payload:
    def __reduce__(self):
        return os.system, (PAYLOAD,)


def archive(path: Path, files: list[tuple[str | tarfile.TarInfo, bytes]], mode: str = "w:") -> None:
    with tarfile.open(path, mode) as tar:
        for name, content in files:
            info = name if isinstance(name, tarfile.TarInfo) else tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


def added(name, content: bytes = b"x", **fields):
    """One more member, of any type."""

    def write(files: dict, path: Path) -> None:
        info = tarfile.TarInfo(name)
        for field, value in fields.items():
            setattr(info, field, value)
        archive(path, [*files.items(), (info, content)])

    return write


def config(**changes):
    """Other values in the config; a dotted key is written with two underscores."""

    def write(files: dict, path: Path) -> None:
        values = yaml.safe_load(files[CONFIG])
        for key, value in changes.items():
            *sections, last = key.split("__") if not key.startswith("_") else [key]
            node = values
            for section in sections:
                node = node[section]
            node[last] = value
        archive(path, list((files | {CONFIG: yaml.safe_dump(values).encode()}).items()))

    return write


def config_text(text: str):
    def write(files: dict, path: Path) -> None:
        archive(path, list((files | {CONFIG: files[CONFIG] + text.encode()}).items()))

    return write


def weights(change):
    """Other bytes for the weights."""

    def write(files: dict, path: Path) -> None:
        archive(path, list((files | {WEIGHTS: change(files[WEIGHTS])}).items()))

    return write


def saved(**tensors):
    """The same weights, with some replaced."""

    def change(content: bytes) -> bytes:
        out = io.BytesIO()
        torch.save(torch.load(io.BytesIO(content), weights_only=True) | tensors, out)
        return out.getvalue()

    return weights(change)


def raw_pickle(_: bytes) -> bytes:
    out = io.BytesIO()
    torch.save({"layer.weight": Payload()}, out, _use_new_zipfile_serialization=False)
    return out.getvalue()


def compressed(content: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    return out.getvalue()


def one_bit_flipped(content: bytes) -> bytes:
    with zipfile.ZipFile(io.BytesIO(content)) as old:
        record = next(old.read(name) for name in old.namelist() if name.endswith("data/0"))
    at = content.index(record) + 3
    return content[:at] + bytes([content[at] ^ 0x40]) + content[at + 1 :]


def cut_short(files: dict, path: Path) -> None:
    archive(path, list(files.items()))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 3])


ALIASES = "\nz0: &z0 [x, x]" + "".join(f"\nz{i}: &z{i} [*z{i - 1}, *z{i - 1}, *z{i - 1}]" for i in range(1, 12))

KINDS = {
    "traversal": (added("../escaped.txt"), "'../escaped.txt' does not lie flat"),
    "absolute member": (added("/etc/escaped.txt"), "does not lie flat"),
    "folder": (added("folder/file.txt"), "does not lie flat"),
    "symlink": (added("link", b"", type=tarfile.SYMTYPE, linkname="/etc/passwd"), "'link' is not a regular file"),
    "hard link": (added("link", b"", type=tarfile.LNKTYPE, linkname="/etc/passwd"), "not a regular file"),
    "fifo": (added("pipe", b"", type=tarfile.FIFOTYPE), "not a regular file"),
    "duplicate member": (added("./" + WEIGHTS), f"{WEIGHTS!r} is there twice"),
    "too many members": (lambda f, p: archive(p, [*f.items(), *((f"n{i}", b"") for i in range(70))]), "more than 64"),
    "gz": (lambda f, p: archive(p, list(f.items()), "w:gz"), "not a whole, plain tar"),
    "truncated": (cut_short, "not a whole, plain tar"),
    "empty": (lambda f, p: p.write_bytes(b""), "not a whole, plain tar"),
    "no weights": (lambda f, p: archive(p, [(CONFIG, f[CONFIG])]), f"has no {WEIGHTS}"),
    "os.system target": (config(codec__model={"_target_": "os.system", "command": PAYLOAD}), "'os.system'"),
    "allowed function": (config(codec__model={"_target_": WRITE_TEXT, "w_path": TRACE, "val": "x"}), "write_txt"),
    "remote code": (config(codec__model={"_target_": AUTO_TOKENIZER, "trust_remote_code": True}), "AutoTokenizer"),
    "trust flag": (config(codec__trust_remote_code=True), "codec.trust_remote_code"),
    "whole target": (config(_target_="nemo.collections.tts.models.audio_codec.AudioCodecModel"), "'_target_'"),
    "shifted target": (config(params={"_target_": "os.system"}), "'params'"),
    "config in config": (config(model={"target": "os.system"}), "'model'"),
    "other codec file": (config(codec__semantic_codec_path="other.nemo"), "semantic_codec_path"),
    "codec by path": (config(codec__path="other.nemo"), "'codec.path'"),
    "download": (config(codec__use_scl_loss=True), "use_scl_loss"),
    "environment": (config(width="${oc.env:HOME}"), "interpolation"),
    "absolute artifact": (config(tokenizer__path="/etc/passwd"), "tokenizer.path"),
    "local artifact": (config(tokenizer__path="secret.txt"), "tokenizer.path"),
    "artifact above": (config(tokenizer__path="nemo:../secret.txt"), "tokenizer.path"),
    "path above": (config(note="runs/../../secret.txt"), "reaches outside"),
    "address": (config(note="hf://somebody/model"), "reaches outside"),
    "alias bomb": (config_text(ALIASES), "alias"),
    "yaml tag": (config_text(f"\nnote: !!python/object/apply:os.system ['{PAYLOAD}']"), "YAML tag"),
    "deep yaml": (config_text("\nnote: " + "[" * 5000 + "]" * 5000), "nested deeper"),
    "broken yaml": (config_text("\n: {"), CONFIG),
    "big config": (config_text("\n#" + "x" * (300 << 10)), "bytes"),
    "other class": (config(target="nemo.collections.tts.models.audio_codec.AudioCodecModel"), "of another class"),
    "pickle in zip": (saved(extra=Payload()), "UnpicklingError"),
    "raw pickle": (weights(raw_pickle), WEIGHTS),
    "compressed weights": (weights(compressed), "compressed"),
    "damaged weights": (weights(one_bit_flipped), "checksum"),
    "nan weights": (saved(**{"layer.bias": torch.full([4], float("nan"))}), "'layer.bias' has values that are not fin"),
    "huge view": (saved(**{"layer.bias": torch.zeros(1).expand(10**9)}), "larger than"),
    "extra state": (saved(**{"layer._extra_state": torch.zeros(4, dtype=torch.uint8)}), "could run code"),
    "not a tensor": (saved(**{"layer.bias": "text"}), "expected a dense tensor, got str"),
}

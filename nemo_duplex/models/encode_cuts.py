"""The agent's codes, computed once and kept beside the cuts.

    <cuts>/train.jsonl.gz      -> codec.encode(target_audio) ->  <output>/train/     cuts, recording, target_audio, agent_codes
    <cuts>/held_out.jsonl.gz                                     <output>/held_out/  Lhotse Shar, agent_codes [T, Q]
                                                                 <output>/train.json, held_out.json: made from what

Encoding the target audio is most of a training step's work when it is done in every step; here it is done once.
A split is whole or absent: it is written to a hidden folder and renamed. A finished split is not made again.
Boundary: manifests in, Shar out; the codec does the work and data/manifest.py judges the cuts.
"""

import hashlib
import json
import logging
import tempfile
from pathlib import Path

import numpy as np
import torch
from lhotse import CutSet
from lhotse.cut import Cut
from lhotse.shar import SharWriter
from torch.nn.utils.rnn import pad_sequence
from tqdm import tqdm

from nemo_duplex.clock import FrameClock
from nemo_duplex.config import EncodeConfig, clock_from
from nemo_duplex.data.files import PARTIAL, atomic
from nemo_duplex.data.manifest import validate_cut
from nemo_duplex.modules.codec import Codec, load_codec

SPLITS = ("train", "held_out")
FIELDS = {"recording": "wav", "target_audio": "wav", "agent_codes": "numpy"}

log = logging.getLogger(__name__)


def encode_splits(config: EncodeConfig) -> None:
    """Encodes both splits of a data set, but not one that is finished.

    Raises:
        ValueError: for a bad cut, by name, and for a split that was made with another codec or from other cuts.
    """
    made_from = {split: _made_from(config, split) for split in SPLITS}
    todo = [split for split in SPLITS if not _is_finished(Path(config.output) / split, made_from[split])]
    if not todo:
        return
    clock = clock_from(config.clock)
    codec = load_codec(config.codec, clock).to("cuda" if torch.cuda.is_available() else "cpu")
    for split in todo:
        cuts = list(CutSet.from_file(_manifest(config, split)))
        for cut in tqdm(cuts, desc=f"{split}: check", unit="cut"):
            validate_cut(cut, clock)
        _write_made_from(Path(config.output) / split, made_from[split])
        write_split(cuts, codec, Path(config.output) / split, clock, config.shard_size, config.batch)


def write_split(cuts: list[Cut], codec: Codec, folder: Path, clock: FrameClock, shard_size: int, batch: int) -> None:
    """Writes cuts with their codes as Lhotse Shar to `folder`, whole or not at all."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=PARTIAL, dir=folder.parent) as parent:
        part = Path(parent) / folder.name
        part.mkdir()
        with SharWriter(part, FIELDS, shard_size=shard_size) as writer:
            for start in tqdm(range(0, len(cuts), batch), desc=folder.name, unit="batch"):
                for cut in with_codes(cuts[start : start + batch], codec, clock):
                    writer.write(cut)
        part.rename(folder)


def with_codes(cuts: list[Cut], codec: Codec, clock: FrameClock) -> list[Cut]:
    """The cuts with `agent_codes` [T, Q] int32 attached, a TemporalArray on the clock, so that truncation follows it."""
    audio = [torch.from_numpy(np.ascontiguousarray(cut.load_target_audio()[0])) for cut in cuts]
    samples = torch.tensor([len(row) for row in audio])
    device = next(codec.parameters()).device
    codes = codec.encode(pad_sequence(audio, batch_first=True).to(device), samples.to(device)).int().cpu()
    return [
        cut.attach_tensor("agent_codes", row[: clock.agent_frames(int(count))], frame_shift=clock.frame_s, temporal_dim=0)
        for cut, row, count in zip(cuts, codes, samples, strict=True)
    ]


def _manifest(config: EncodeConfig, split: str) -> Path:
    return Path(config.cuts) / f"{split}.jsonl.gz"


def _made_from(config: EncodeConfig, split: str) -> dict:
    codec = Path(config.codec)
    return {
        "codec": _digest(codec) if codec.is_file() else config.codec,
        "cuts": _digest(_manifest(config, split)),
    }


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _is_finished(folder: Path, made_from: dict) -> bool:
    """True when the split is there and was made from the same codec and cuts."""
    record = folder.with_suffix(".json")
    if not folder.is_dir() or not record.is_file():
        return False
    found = json.loads(record.read_text())
    for part in made_from:
        if found[part] != made_from[part]:
            raise ValueError(f"{folder} was made from other {part} (see {record}): remove the folder, or set another `output`")
    log.info("%s is finished: not made again", folder)
    return True


def _write_made_from(folder: Path, made_from: dict) -> None:
    with atomic(folder.with_suffix(".json")) as part:
        part.write_text(json.dumps(made_from, indent=2))

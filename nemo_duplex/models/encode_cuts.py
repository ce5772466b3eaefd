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
from nemo_duplex.modules.codec import Codec
from nemo_duplex.parts.codec_file import load_codec

SPLITS = ("train", "held_out")
FIELDS = {"recording": "wav", "target_audio": "wav", "agent_codes": "numpy"}

log = logging.getLogger(__name__)


class CutEncoder:
    """Attaches the agent's codes to cuts.

    Args:
        codec, clock: of the model that will be trained.
        silence_outside_turns: whether frames in which the agent has no turn get the codes of silence. NanoCodec's encoder
            sees 0.4 s ahead: without this the codes of the silence before a turn tell the turn, and a model learns to
            expect there what nobody will give it live.
    """

    def __init__(self, codec: Codec, clock: FrameClock, silence_outside_turns: bool):
        self.codec = codec
        self.clock = clock
        self.silence = codec.silence_codes().int().cpu() if silence_outside_turns else None

    def __call__(self, cuts: list[Cut]) -> list[Cut]:
        """The cuts with `agent_codes` [T, Q] int32, a TemporalArray on the clock, so that truncation follows it."""
        audio = [torch.from_numpy(np.ascontiguousarray(cut.load_target_audio()[0])) for cut in cuts]
        samples = torch.tensor([len(row) for row in audio])
        device = next(self.codec.parameters()).device
        codes = self.codec.encode(pad_sequence(audio, batch_first=True).to(device), samples.to(device)).int().cpu()
        return [
            self._attach(cut, row[: self.clock.agent_frames(int(count))])
            for cut, row, count in zip(cuts, codes, samples, strict=True)
        ]

    def _attach(self, cut: Cut, codes: torch.Tensor) -> Cut:
        if self.silence is not None:
            codes = torch.where(_in_a_turn(cut, len(codes), self.clock)[:, None], codes, self.silence)
        return cut.attach_tensor("agent_codes", codes, frame_shift=self.clock.frame_s, temporal_dim=0)


def _in_a_turn(cut: Cut, frames: int, clock: FrameClock) -> torch.Tensor:
    """[T] bool, True where the agent has a turn."""
    inside = torch.zeros(frames, dtype=torch.bool)
    for turn in cut.supervisions:
        if turn.speaker == "agent":
            inside[clock.frame_at(turn.start) : clock.frames_in(turn.end)] = True
    return inside


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
        writer = CutEncoder(codec, clock, config.silence_outside_turns)
        write_split(cuts, writer, Path(config.output) / split, config.shard_size, config.batch)


def write_split(cuts: list[Cut], encoder: CutEncoder, folder: Path, shard_size: int, batch: int) -> None:
    """Writes cuts with their codes as Lhotse Shar to `folder`, whole or not at all."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=PARTIAL, dir=folder.parent) as parent:
        part = Path(parent) / folder.name
        part.mkdir()
        with SharWriter(part, FIELDS, shard_size=shard_size) as writer:
            for start in tqdm(range(0, len(cuts), batch), desc=folder.name, unit="batch"):
                for cut in encoder(cuts[start : start + batch]):
                    writer.write(cut)
        part.rename(folder)


def _manifest(config: EncodeConfig, split: str) -> Path:
    return Path(config.cuts) / f"{split}.jsonl.gz"


def _made_from(config: EncodeConfig, split: str) -> dict:
    codec = Path(config.codec)
    return {
        "codec": _digest(codec) if codec.is_file() else config.codec,
        "cuts": _digest(_manifest(config, split)),
        "silence_outside_turns": config.silence_outside_turns,
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

"""Cuts -> batches, through NeMo's own Lhotse loader.

    Shar {cuts, recording, agent_codes} --NeMo: buckets, batch_duration--> CutSet --DuplexDataset--> DuplexBatch

The agent's audio is not opened in training: its codes were computed once (examples/duplex_encode_codes.py) and lie
beside the cuts as the field `agent_codes` [T, Q]. The user's audio is read at the rate it is stored at; another rate
is an error. Boundary: reading, checking, padding to one length. The delay and the shift belong to the model. NeMo is
imported by `make_loader` only, speechlm2 never.
"""

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from lhotse import CutSet
from lhotse.array import Array, TemporalArray
from lhotse.cut import Cut, MixedCut
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from nemo_duplex.clock import FrameClock
from nemo_duplex.data.manifest import check_recording
from nemo_duplex.data.text_stream import TextTokenizer, agent_text
from nemo_duplex.streams import DuplexBatch


@dataclass
class Row:
    """One session of a batch: user_audio [S], agent_text [T], agent_codes [T, Q]; ids that a barge-in left unsaid."""

    id: str
    user_audio: Tensor
    agent_text: Tensor
    agent_codes: Tensor
    cut_tokens: int


class DuplexDataset(torch.utils.data.Dataset):
    """Turns the CutSet of one batch into a DuplexBatch; holds no data.

    Args:
        tokenizer: of the agent's text.
        clock: frame length and the rate at which the user's audio is stored.
    """

    def __init__(self, tokenizer: TextTokenizer, clock: FrameClock):
        self.tokenizer = tokenizer
        self.clock = clock

    def __getitem__(self, cuts: CutSet) -> DuplexBatch:
        """Raises ValueError, naming the cut, for any that does not fit the clock, the codes or its own text."""
        return _collate([self._row(cut) for cut in cuts], self.tokenizer.tokens.pad, self.clock)

    def _row(self, cut: Cut) -> Row:
        # the session's own cut, without the noise and the padding that the loader mixed in under a name of its own
        own = cut.first_non_padding_cut if isinstance(cut, MixedCut) else cut
        audio, codes = self._user_audio(cut, own), self._agent_codes(cut, own)
        heard = self.clock.user_frames(len(audio))
        _check_lengths(own, heard, len(codes))
        frames = min(heard, len(codes))
        text = agent_text(cut, frames, self.tokenizer, self.clock)
        return Row(own.id, audio[: frames * self.clock.user_hop], text, codes[:frames], self._cut_tokens(cut, text))

    def _cut_tokens(self, cut: Cut, text: Tensor) -> int:
        """Ids of the agent's turns that are not in the row: what barge-ins cut."""
        written = sum(len(self.tokenizer.encode(turn.text)) for turn in cut.supervisions if turn.speaker == "agent")
        tokens = self.tokenizer.tokens
        controls = torch.tensor([tokens.pad, tokens.bos, tokens.eos])
        return written - int((~torch.isin(text, controls)).sum())

    def _user_audio(self, cut: Cut, own: Cut) -> Tensor:
        if not own.has_recording:
            raise ValueError(
                f"cut {own.id!r} has no recording: add the user's stream, or the field recording to shar_path"
            )
        check_recording(own.recording, self.clock.user_sample_rate, f"cut {own.id!r}: recording")
        samples = cut.load_audio()
        if not np.isfinite(samples).all():
            raise ValueError(
                f"cut {own.id!r}: the user's audio holds NaN or infinity: repair the recording or remove the cut"
            )
        return torch.from_numpy(samples[0]).float()

    def _agent_codes(self, cut: Cut, own: Cut) -> Tensor:
        _check_codes(own, self.clock)
        # the whole of both, before Lhotse cuts the codes to the length of the cut
        _check_lengths(own, self.clock.user_frames(own.recording.num_samples), own.agent_codes.shape[0])
        codes = cut.load_agent_codes()
        if codes.ndim != 2 or not np.issubdtype(codes.dtype, np.integer):
            raise ValueError(
                f"cut {own.id!r}: agent_codes are {codes.dtype} of shape {codes.shape}; expected whole numbers "
                "[frames, codebooks]: encode them again (examples/duplex_encode_codes.py)"
            )
        return torch.from_numpy(codes.astype(np.int64))


def _check_codes(cut: Cut, clock: FrameClock) -> None:
    if not cut.has_custom("agent_codes") or not isinstance(cut.agent_codes, (Array, TemporalArray)):
        raise ValueError(
            f"cut {cut.id!r} has no agent_codes: make them with examples/duplex_encode_codes.py, and name the field "
            "agent_codes in shar_path"
        )
    temporal = isinstance(cut.agent_codes, TemporalArray)
    if temporal and cut.agent_codes.array is None:
        raise ValueError(
            f"cut {cut.id!r}: NeMo's loader has lost the agent_codes (3.0.0 does, for a TemporalArray in a manifest of "
            "cuts_path): read them from a Shar with shar_path, or store them as a plain Array"
        )
    if temporal and abs(cut.agent_codes.frame_shift - clock.frame_s) > 1e-6:
        raise ValueError(
            f"cut {cut.id!r}: agent_codes have a frame every {cut.agent_codes.frame_shift:g} s, the clock every "
            f"{clock.frame_s:g} s: take a codec of the clock's frame rate"
        )


def _check_lengths(cut: Cut, heard: int, codes: int) -> None:
    if abs(heard - codes) > 1:
        raise ValueError(
            f"cut {cut.id!r}: the user's audio has {heard} frames and the agent's codes {codes}; expected at most "
            "one frame of difference: encode the codes again from the same cuts (examples/duplex_encode_codes.py)"
        )


def _collate(rows: list[Row], pad: int, clock: FrameClock) -> DuplexBatch:
    frames = torch.tensor([len(row.agent_text) for row in rows])
    longest = int(frames.max())
    return DuplexBatch(
        ids=[row.id for row in rows],
        user_audio=_padded([row.user_audio for row in rows], longest * clock.user_hop, 0),
        agent_text=_padded([row.agent_text for row in rows], longest, pad),
        agent_codes=_padded([row.agent_codes for row in rows], longest, 0),
        frames=frames,
        cut_tokens=sum(row.cut_tokens for row in rows),
    )


def _padded(values: list[Tensor], length: int, fill: int) -> Tensor:
    """[B, length, ...]: every value, and `fill` after its end."""
    out = values[0].new_full((len(values), length, *values[0].shape[1:]), fill)
    for row, value in zip(out, values, strict=True):
        row[: len(value)] = value
    return out


def make_loader(config: DictConfig | dict[str, Any], dataset: DuplexDataset, rank: int, world: int):
    """NeMo's dataloader over a section `train_ds` or `validation_ds`: one DuplexBatch an item.

    A Shar read with `shar_path: {cuts: ..., recording: ..., agent_codes: ...}` does not even open the agent's audio.
    Without `force_finite: true` a Shar is repeated for ever. The loader seeds torch, numpy and random with config.seed.

    Args:
        config: keys of NeMo's LhotseDataLoadingConfig; the sample rate comes from the dataset's clock.
        dataset: makes the batches.
        rank, world: of the data-parallel group.

    Raises:
        ValueError: for a key that NeMo's loader does not know (it would ignore it), or another sample rate.
    """
    from nemo.collections.common.data.lhotse import get_lhotse_dataloader_from_config
    from nemo.collections.common.data.lhotse.dataloader import LhotseDataLoadingConfig

    known = {item.name for item in fields(LhotseDataLoadingConfig)} | {"use_lhotse"}
    section = OmegaConf.create(
        OmegaConf.to_container(config, resolve=True) if isinstance(config, DictConfig) else dict(config)
    )
    _complete(section, known, dataset.clock.user_sample_rate)
    return get_lhotse_dataloader_from_config(section, global_rank=rank, world_size=world, dataset=dataset)


def _complete(section: DictConfig, known: set[str], rate: int) -> None:
    """Checks the keys of a section, and of the sections inside it when it is a `multi_config`; sets the sample rate."""
    parts = {key for key, value in section.items() if isinstance(value, DictConfig) and key not in known}
    nested = parts if "multi_config" in section and section.multi_config else set()
    unknown = sorted(set(section) - known - nested)
    if unknown:
        raise ValueError(
            f"the data section has keys that NeMo's Lhotse loader does not know: {', '.join(unknown)}; "
            "remove them or correct their names (LhotseDataLoadingConfig lists all)"
        )
    if "sample_rate" in section and section.sample_rate != rate:
        raise ValueError(
            f"sample_rate {section.sample_rate} in the data section: the clock's user rate is {rate} Hz; remove the key"
        )
    section.sample_rate = rate
    for key in nested:
        _complete(section[key], known, rate)

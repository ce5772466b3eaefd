"""Utterances of one voice: the crops that its codec is trained on.

    cut 0  ...speech.....speech..        a crop starts at random around a random instant of speech,
             [---crop---]                so that silence does not fill the batches; past the ends of a cut there are zeros

Boundary: Lhotse cuts in, tensors out; the codec is in models/voice_codec.py.
"""

import numpy as np
import torch
from lhotse import CutSet, Recording
from lhotse.cut import Cut
from torch.utils.data import Dataset

from nemo_duplex.clock import FrameClock
from nemo_duplex.data.manifest import check_recording

POWER_HOP = 256
SPEECH_POWER = 1e-3  # of the loudest instant, -30 dB


def read_utterances(path: str, field: str, held_out: int, clock: FrameClock) -> tuple[list[Cut], list[Cut]]:
    """The utterances of a manifest, split: every n-th is held out, `held_out` of them in all.

    Raises:
        ValueError: for a cut without audio in `field`, not mono or at another rate, and for too few cuts.
    """
    cuts = list(CutSet.from_file(path))
    for cut in cuts:
        if not cut.has(field) or not isinstance(getattr(cut, field), Recording):
            raise ValueError(f"cut {cut.id!r} of {path} has no {field}: set `audio_field` to the field that holds the voice")
        check_recording(getattr(cut, field), clock.agent_sample_rate, f"cut {cut.id!r}: {field}")
    if not 0 < held_out < len(cuts):
        raise ValueError(f"held_out {held_out} of {len(cuts)} utterances in {path}; expected 1 to {len(cuts) - 1}")
    chosen = {(2 * index + 1) * len(cuts) // (2 * held_out) for index in range(held_out)}
    kept = [cut for index, cut in enumerate(cuts) if index not in chosen]
    return kept, [cuts[index] for index in sorted(chosen)]


def load_voice(cut: Cut, field: str) -> torch.Tensor:
    """[S] float32 samples of one cut."""
    samples = cut.load_audio() if field == "recording" else cut.load_custom(field)
    return torch.from_numpy(np.ascontiguousarray(samples[0], dtype=np.float32))


def speech_crop(audio: torch.Tensor, samples: int) -> torch.Tensor:
    """[samples] a crop that holds a random instant of speech; zeros where it reaches past the ends."""
    power = torch.nn.functional.avg_pool1d(audio[None] ** 2, POWER_HOP, ceil_mode=True)[0]
    speech = torch.nonzero(power >= SPEECH_POWER * power.max())[:, 0]
    instant = int(speech[torch.randint(len(speech), ())]) * POWER_HOP
    start = instant - int(torch.randint(samples, ()))
    kept = audio[max(0, start) : start + samples]
    crop = audio.new_zeros(samples)
    crop[max(0, -start) : max(0, -start) + len(kept)] = kept
    return crop


class VoiceCrops(Dataset):
    """Random crops of utterances, longer utterances in proportion; an epoch is as long as it is told to be.

    Args:
        cuts: utterances.
        field: where a cut holds the voice.
        samples: length of a crop.
        crops: length of an epoch.
    """

    def __init__(self, cuts: list[Cut], field: str, samples: int, crops: int):
        self.cuts, self.field, self.samples, self.crops = cuts, field, samples, crops
        self.weights = torch.tensor([cut.duration for cut in cuts])

    def __len__(self) -> int:
        return self.crops

    def __getitem__(self, index: int) -> dict:
        cut = self.cuts[int(torch.multinomial(self.weights, 1))]
        crop = speech_crop(load_voice(cut, self.field), self.samples)
        return {"audio": crop, "audio_lens": torch.tensor(self.samples)}


class WholeUtterances(Dataset):
    """Each utterance whole, for validation (one to a batch)."""

    def __init__(self, cuts: list[Cut], field: str):
        self.cuts, self.field = cuts, field

    def __len__(self) -> int:
        return len(self.cuts)

    def __getitem__(self, index: int) -> dict:
        audio = load_voice(self.cuts[index], self.field)
        return {"audio": audio, "audio_lens": torch.tensor(len(audio))}

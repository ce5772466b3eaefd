"""The agent's text on the clock: one row of ids, one a frame.

    frame        0    1    2    3    4    5    6    7    8    9
    turn 2..8    PAD  PAD  BOS  id0  id1  id2  PAD  PAD  EOS  PAD       ids contiguous from the frame after BOS
    turn 2..10   PAD  PAD  BOS  id0  id1  id2  PAD  PAD  PAD  PAD       ends with the session: no frame is left for EOS

EOS stands in the first frame in which the agent is silent again. A turn whose ids do not fit before its EOS is an error
that names it: nothing is cut and EOS never overwrites text.
Boundary: ids and frames. `turns_in` is the inverse, for metrics.
"""

from pathlib import Path
from typing import NamedTuple

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor

from nemo_duplex.clock import FrameClock
from nemo_duplex.config import TokenizerConfig
from nemo_duplex.data.files import atomic
from nemo_duplex.tokens import TextTokens


class TextTokenizer:
    """Any LLM's `tokenizer.json`, with the ids of its three control tokens.

    Raises:
        ValueError: when the file is missing or not a tokenizer, or has not all three control tokens.
    """

    def __init__(self, config: TokenizerConfig):
        if not Path(config.path).is_file():
            raise ValueError(
                f"tokenizer {config.path}: no such file; expected a Hugging Face tokenizer.json: correct the path"
            )
        self._tokenizer = Tokenizer.from_file(str(config.path))
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self.tokens = TextTokens(*(self._control(config, name) for name in (config.pad, config.bos, config.eos)))
        self._controls = {self.tokens.pad, self.tokens.bos, self.tokens.eos}

    def _control(self, config: TokenizerConfig, name: str) -> int:
        found = self._tokenizer.token_to_id(name)
        if found is None:
            raise ValueError(
                f"tokenizer {config.path} has no token {name!r}: add it, or name another as pad, bos or eos "
                "in the tokenizer section"
            )
        return found

    @property
    def vocabulary(self) -> int:
        """Rows that an embedding of every id needs: the largest id and one more."""
        return max(self._tokenizer.get_vocab().values()) + 1

    def encode(self, text: str) -> list[int]:
        """Ids of a text alone: no control token is added, and one that is spelt out in the text is an error."""
        ids = self._tokenizer.encode(text, add_special_tokens=False).ids
        if self._controls & set(ids):
            raise ValueError(f"the text {text!r} spells out a control token (pad, bos or eos): remove it from the text")
        return ids

    def decode(self, ids) -> str:
        """Text of ids (a list or a tensor); control tokens are dropped."""
        return self._tokenizer.decode([int(index) for index in ids if int(index) not in self._controls])


def train_tokenizer(texts: list[str], vocabulary: int, config: TokenizerConfig) -> TextTokenizer:
    """Trains a byte-level BPE (it spells any text) with the control tokens as ids 0, 1, 2; writes it to config.path.

    `vocabulary` is the most it may have: a small set of texts may not hold enough pairs to merge.
    """
    controls = [config.pad, config.bos, config.eos]
    letters = pre_tokenizers.ByteLevel.alphabet()
    if vocabulary < len(letters) + len(controls):
        raise ValueError(
            f"vocabulary {vocabulary}: expected at least {len(letters) + len(controls)}, "
            "all bytes and the control tokens"
        )
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, special_tokens=controls, initial_alphabet=letters, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    with atomic(config.path) as part:
        tokenizer.save(str(part))
    return TextTokenizer(config)


class TextTurn(NamedTuple):
    """A turn of the agent: it speaks in frames start .. end-1; `name` says in errors which turn it is."""

    start: int
    end: int
    ids: list[int]
    name: str


def text_stream(turns: list[TextTurn], frames: int, tokens: TextTokens) -> Tensor:
    """One row [T] int64 of the agent's text.

    Args:
        turns: the agent's turns in the order of time, as TextTurn or tuples (start, end, ids, name).
        frames: length T of the session. A turn may end with it (end == T): then it has no EOS.
        tokens: ids of PAD, BOS and EOS.

    Raises:
        ValueError: naming the turn, when its ids do not fit, it lies outside the session, or begins before the EOS of
            the former.
    """
    row = torch.full((frames,), tokens.pad, dtype=torch.int64)
    free_from = 0
    for turn in (TextTurn(*turn) for turn in turns):
        _check_turn(turn, frames, free_from)
        row[turn.start] = tokens.bos
        row[turn.start + 1 : turn.start + 1 + len(turn.ids)] = torch.tensor(turn.ids, dtype=torch.int64)
        if turn.end < frames:
            row[turn.end] = tokens.eos
        free_from = turn.end + 1
    return row


def _check_turn(turn: TextTurn, frames: int, free_from: int) -> None:
    if turn.start < free_from:
        raise ValueError(
            f"{turn.name} starts at frame {turn.start}, but the stream is taken up to frame {free_from} (start of "
            "the session, or end of the agent's former turn): move it, or join the two turns"
        )
    if turn.end > frames:
        raise ValueError(
            f"{turn.name} ends at frame {turn.end}, after the session's {frames} frames: "
            "cut the turn or lengthen the session"
        )
    if 1 + len(turn.ids) > turn.end - turn.start:
        raise ValueError(
            f"{turn.name} has {len(turn.ids)} tokens and a BOS for {turn.end - turn.start} frames "
            f"(frames {turn.start} to {turn.end}): shorten its text, lengthen its speech, or take a tokenizer with a "
            "larger vocabulary"
        )


def agent_text(cut, frames: int, tokenizer: TextTokenizer, clock: FrameClock) -> Tensor:
    """The row [T] of a Lhotse cut: its supervisions of speaker "agent", encoded and placed.

    A turn that was interrupted (supervision.custom["interrupted"]) has only the ids that come before its EOS: the rest
    was never said. Any other turn has to fit.
    """
    turns = []
    for turn in sorted((turn for turn in cut.supervisions if turn.speaker == "agent"), key=lambda turn: turn.start):
        start, end = clock.frame_at(turn.start), clock.frames_in(turn.end)
        ids = tokenizer.encode(turn.text)
        if turn.custom and turn.custom.get("interrupted", False):
            ids = ids[: max(end - start - 1, 0)]
        turns.append(TextTurn(start, end, ids, f"cut {cut.id!r}, agent turn {turn.id!r} {turn.text!r}"))
    return text_stream(turns, frames, tokenizer.tokens)


class HeardTurn(NamedTuple):
    """A turn read back from a row: `end` is the frame of its EOS, None when it has none."""

    start: int
    end: int | None
    ids: list[int]


def turns_in(text_ids: Tensor, tokens: TextTokens) -> list[HeardTurn]:
    """The turns of a row [T] of text ids, the inverse of `text_stream`.

    A model may write any row, so: a turn is what follows a BOS up to the next EOS, PADs dropped; a BOS inside a turn
    leaves that one without an end (None) and starts another; what stands outside turns belongs to none.
    """
    turns: list[HeardTurn] = []
    speaking = False
    for frame, token in enumerate(text_ids.tolist()):
        if token == tokens.bos:
            turns.append(HeardTurn(frame, None, []))
            speaking = True
        elif token == tokens.eos and speaking:
            turns[-1] = turns[-1]._replace(end=frame)
            speaking = False
        elif speaking and token != tokens.pad:
            turns[-1].ids.append(token)
    return turns

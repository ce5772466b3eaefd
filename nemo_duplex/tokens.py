"""Ids with a meaning of their own: text PAD, BOS and EOS, and the control codes above the codec's own codes.

    codes      0 .. C-1   the codec's            C = 4032 for FSQ [9,8,8,7]
    control    C+1 pad | C+2 unk (the filler of the delay) | C+3 bos | C+4 eos      as in the paper: C+5 = 4037 ids

Boundary: numbers only; the tokenizer itself is in data/text_stream.py.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class TextTokens:
    """Ids of the control tokens in the text vocabulary."""

    pad: int
    bos: int
    eos: int

    def __post_init__(self):
        if len({self.pad, self.bos, self.eos}) != 3:
            raise ValueError(
                f"text pad, bos and eos must be three different ids, got {self.pad}, {self.bos}, {self.eos}: "
                "add a token of its own for each to the tokenizer (a PAD that equals EOS hides every end of turn)"
            )


@dataclass(frozen=True)
class CodeTokens:
    """Ids of one codebook: `size` codec codes (C) and the control codes above them."""

    size: int

    @property
    def pad(self) -> int:
        return self.size + 1

    @property
    def unk(self) -> int:
        return self.size + 2

    @property
    def bos(self) -> int:
        return self.size + 3

    @property
    def eos(self) -> int:
        return self.size + 4

    @property
    def vocabulary(self) -> int:
        """Number of ids of one codebook, control codes included."""
        return self.size + 5

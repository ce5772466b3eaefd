"""State: all that passes from frame t to frame t+1, as a dataclass beside its module.

Each field says where its batch axis is, so that one row (one session) can be reset or copied by itself:

    @dataclass
    class RingState(State):
        keys: list[Tensor] = rows_on(1)     # [W, B, G, D] for each layer
        frame: int = shared()               # one value for all rows

Boundary: torch and the standard library; knows nothing of what the fields mean.
"""

from dataclasses import field, fields

import torch


def rows_on(axis: int):
    """Declares a tensor, a list of tensors or a nested state whose rows lie on `axis`."""
    return field(metadata={"axis": axis})


def shared():
    """Declares a field that all rows have in common (a counter of frames)."""
    return field(metadata={"axis": None})


def _tensors(value):
    return value if isinstance(value, (list, tuple)) else [value]


class State:
    """Base of every state. Subclasses are dataclasses whose fields come from `rows_on` or `shared`."""

    def _row_fields(self):
        for item in fields(self):
            if item.metadata["axis"] is not None:
                yield getattr(self, item.name), item.metadata["axis"]

    def copy_rows(self, rows, source: "State") -> None:
        """Overwrites `rows` (indices) of every batched field, in place, with the same rows of `source`.

        With a fresh state as the source this resets the rows; the others are not touched.
        """
        index = torch.as_tensor(rows, dtype=torch.long)
        for (mine, axis), (theirs, _) in zip(self._row_fields(), source._row_fields(), strict=True):
            if isinstance(mine, State):
                mine.copy_rows(rows, theirs)
                continue
            for target, other in zip(_tensors(mine), _tensors(theirs), strict=True):
                place = index.to(target.device)
                target.index_copy_(axis, place, other.index_select(axis, place))

    def nbytes(self) -> int:
        """Bytes of all batched tensors."""
        total = 0
        for value, _ in self._row_fields():
            if isinstance(value, State):
                total += value.nbytes()
            else:
                total += sum(tensor.numel() * tensor.element_size() for tensor in _tensors(value))
        return total

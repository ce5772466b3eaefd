"""Dialogues as text: who says what, in which order.

    {"question": "...", "answer": "..."}                       one exchange: user, agent
    {"id": "...", "turns": [{"role": "user", "text": "..."}, {"role": "agent", "text": "..."}, ...]}

    pairs  q1 a1 | q2 a2 | q3 a3 ...  --join-->  q2 a2 q7 a7 | q5 a5 q1 a1 q9 a9 | ...
    (the paper's way to long dialogues: random pairs of one set)

Boundary: text only; turns have no times yet (timeline.py) and no sound (voices.py).
"""

import json
import random
from dataclasses import dataclass
from pathlib import Path

ROLES = ("user", "agent")


@dataclass(frozen=True)
class Turn:
    """What one party says before the other speaks. role: user | agent."""

    role: str
    text: str


@dataclass(frozen=True)
class Dialogue:
    """Turns that alternate, from a user's to an agent's."""

    id: str
    turns: tuple[Turn, ...]

    def __post_init__(self):
        if not self.turns:
            raise ValueError(f"dialogue {self.id!r} has no turns: add a user turn and the agent's answer, or remove it")
        for index, turn in enumerate(self.turns):
            _check_turn(turn, index, self.id)
        if len(self.turns) % 2:
            raise ValueError(
                f"dialogue {self.id!r} ends with a turn of the user; expected the agent's answer to it last: "
                "add the answer (a model that sees unanswered turns learns not to answer)"
            )

    @property
    def exchanges(self) -> int:
        """Number of user turns that are answered."""
        return len(self.turns) // 2


def _check_turn(turn: Turn, index: int, name: str) -> None:
    where = f"dialogue {name!r}, turn {index}"
    if turn.role not in ROLES:
        raise ValueError(f"{where}: unknown role {turn.role!r}; expected one of {', '.join(ROLES)}: rename it")
    if not isinstance(turn.text, str) or not turn.text.strip():
        raise ValueError(
            f"{where}: the text is empty ({turn.text!r}); write what the {turn.role} says or remove the turn"
        )
    if turn.role != ROLES[index % 2]:
        raise ValueError(
            f"{where}: the {turn.role} speaks where the {ROLES[index % 2]} should; expected turns that alternate, "
            "the user first: join neighbouring turns of one role, and put a turn of the user before the agent's first"
        )


def read_dialogues(path) -> list[Dialogue]:
    """Dialogues of a jsonl file, one a line, as pairs or with turns (see the top of this module).

    Raises:
        ValueError: for a line that is not one of the two forms or breaks a rule, naming file, line and remedy.
    """
    dialogues = []
    for number, line in enumerate(Path(path).read_text(encoding="utf-8").splitlines(), 1):
        if line.strip():
            try:
                dialogues.append(_parse(json.loads(line), number))
            except (ValueError, KeyError, TypeError) as error:
                raise ValueError(f"{path}, line {number}: {_reason(error)}") from error
    if not dialogues:
        raise ValueError(f"{path}: holds no dialogues; expected one JSON object a line")
    return dialogues


def _parse(row: dict, number: int) -> Dialogue:
    if not isinstance(row, dict) or not ({"question", "answer"} <= row.keys() or "turns" in row):
        raise ValueError('expected {"question": ..., "answer": ...} or {"id": ..., "turns": [...]}: rename the keys')
    if "turns" in row:
        turns = tuple(Turn(turn["role"], turn["text"]) for turn in row["turns"])
    else:
        turns = (Turn("user", row["question"]), Turn("agent", row["answer"]))
    return Dialogue(str(row["id"]) if "id" in row else f"line-{number}", turns)


def _reason(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"not a JSON object ({error}); put one object on each line"
    if isinstance(error, KeyError):
        return f'a turn has no key {error}; expected {{"role": ..., "text": ...}}'
    if isinstance(error, TypeError):
        return f'turns are not a list of {{"role": ..., "text": ...}} ({error}): write each turn as an object'
    return str(error)


def join(pairs: list[Dialogue], exchanges: tuple[int, int], rng: random.Random, name: str) -> Dialogue:
    """A dialogue of several random pairs, none twice; their number is drawn from `exchanges` (both ends included)."""
    low, high = exchanges
    if not 1 <= low <= high <= len(pairs):
        raise ValueError(
            f"cannot join {low} to {high} of {len(pairs)} pairs: expected 1 <= low <= high <= number of pairs"
        )
    chosen = rng.sample(pairs, rng.randint(low, high))
    return Dialogue(name, tuple(turn for pair in chosen for turn in pair.turns))


def compose(
    dialogues: list[Dialogue], count: int, exchanges: tuple[int, int], seed: int, prefix: str
) -> list[Dialogue]:
    """`count` dialogues for as many sessions, named prefix-0000 and so on.

    A set of pairs is joined; a set of longer dialogues is used as it is, in a random order, and again when `count` is
    larger.
    """
    rng = random.Random(f"{seed} {prefix}")  # noqa: S311 (data, not secrets)
    lengths = {dialogue.exchanges for dialogue in dialogues}
    names = [f"{prefix}-{index:04d}" for index in range(count)]
    if lengths == {1}:
        return [join(dialogues, exchanges, rng, name) for name in names]
    if 1 in lengths:
        raise ValueError(
            "the set mixes single pairs and longer dialogues; expected one kind: put the pairs into a file of their own"
        )
    order: list[Dialogue] = []
    while len(order) < count:
        order += rng.sample(dialogues, len(dialogues))
    return [Dialogue(name, dialogue.turns) for name, dialogue in zip(names, order, strict=False)]

import json
import random
import re
from pathlib import Path

import pytest

from nemo_duplex.data.dialogue import Dialogue, Turn, compose, join, read_dialogues

PAIRS = [Dialogue(f"p{n}", (Turn("user", f"q{n}"), Turn("agent", f"a{n}"))) for n in range(6)]
LONG = [Dialogue(f"d{n}", (Turn("user", "q"), Turn("agent", "a")) * 2) for n in range(3)]
QUESTIONS = Path(__file__).parents[2] / "conf/demo/questions.jsonl"


def written(tmp_path, *rows):
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows))
    return path


def turns(*pairs):
    return {"id": "d", "turns": [{"role": role, "text": text} for role, text in pairs]}


def test_both_forms_are_read(tmp_path):
    rows = {"question": "q", "answer": "a"}, "", turns(("user", "x"), ("agent", "y"), ("user", "z"), ("agent", "w"))
    pair, dialogue = read_dialogues(written(tmp_path, *rows))
    assert pair == Dialogue("line-1", (Turn("user", "q"), Turn("agent", "a")))
    assert (dialogue.id, dialogue.exchanges, [turn.text for turn in dialogue.turns]) == ("d", 2, ["x", "y", "z", "w"])


@pytest.mark.parametrize(
    ("row", "match"),
    [
        ({"question": "q", "answer": "  "}, "line 2.*turn 1.*text is empty.*write"),
        ({"question": "q", "answer": 5}, "line 2.*text is empty"),
        ({"question": "q"}, "line 2.*expected.*rename the keys"),
        (["q", "a"], "line 2.*expected.*rename the keys"),
        ("not json", "line 2.*not a JSON object"),
        (turns(("agent", "hello"), ("user", "q")), "line 2.*turn 0.*agent speaks where the user should"),
        (turns(("user", "q"), ("user", "r")), "line 2.*turn 1.*user speaks where the agent should.*join"),
        (turns(("system", "q")), "line 2.*unknown role 'system'.*user, agent"),
        (turns(("user", "q"), ("agent", "a"), ("user", "q")), "line 2.*ends with a turn of the user.*add the answer"),
        (turns(), "line 2.*no turns"),
        ({"turns": [{"role": "user"}]}, "line 2.*no key 'text'"),
        ({"turns": 7}, "line 2.*not a list"),
    ],
)
def test_a_bad_line_is_named_with_its_remedy(tmp_path, row, match):
    with pytest.raises(ValueError, match=f"rows.jsonl, {match}"):
        read_dialogues(written(tmp_path, {"question": "q", "answer": "a"}, row))


def test_an_empty_file_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="holds no dialogues"):
        read_dialogues(written(tmp_path, ""))


@pytest.mark.parametrize("seed", range(5))
def test_joined_pairs_stay_whole_and_differ(seed):
    joined = join(PAIRS, (2, 4), random.Random(seed), "s")
    texts = [turn.text for turn in joined.turns]
    assert 2 <= joined.exchanges <= 4 and len(set(texts)) == len(texts)
    assert all(question[1:] == answer[1:] for question, answer in zip(texts[::2], texts[1::2], strict=True))


def test_more_exchanges_than_pairs_is_an_error():
    with pytest.raises(ValueError, match="2 to 7 of 6 pairs"):
        join(PAIRS, (2, 7), random.Random(0), "s")


def test_composition_is_seeded_and_splits_differ():
    first, again = (compose(PAIRS, 8, (2, 4), 0, "train") for _ in range(2))
    assert first == again and [dialogue.id for dialogue in first[:2]] == ["train-0000", "train-0001"]
    assert {dialogue.exchanges for dialogue in first} == {2, 3, 4}
    others = compose(PAIRS, 8, (2, 4), 1, "train"), compose(PAIRS, 8, (2, 4), 0, "held_out")
    assert all([dialogue.turns for dialogue in first] != [dialogue.turns for dialogue in other] for other in others)


def test_longer_dialogues_are_used_as_they_are():
    composed = compose(LONG, 7, (2, 4), 0, "train")
    assert len(composed) == 7 and {dialogue.turns for dialogue in composed} == {LONG[0].turns}
    with pytest.raises(ValueError, match="mixes single pairs and longer"):
        compose(LONG + PAIRS, 7, (2, 4), 0, "train")


def test_the_demo_questions_can_be_spoken_and_barged_into():
    dialogues = read_dialogues(QUESTIONS)
    assert len(dialogues) == 36 and len({dialogue.turns[0].text for dialogue in dialogues}) == 36
    for dialogue in dialogues:
        question, answer = (turn.text for turn in dialogue.turns)
        assert re.fullmatch(r"[A-Za-z,' ]+\?", question) and re.fullmatch(r"[A-Za-z,' ]+\.", answer), answer
        assert 7 <= len(answer.split()) <= 12, answer

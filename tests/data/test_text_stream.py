from types import SimpleNamespace

import pytest
import torch
from tokenizers import Tokenizer, models

from nemo_duplex.config import TokenizerConfig
from nemo_duplex.data.text_stream import (
    HeardTurn,
    TextTokenizer,
    TextTurn,
    agent_text,
    text_stream,
    train_tokenizer,
    turns_in,
)
from nemo_duplex.tokens import TextTokens

P, B, E = 0, 1, 2
TOKENS = TextTokens(pad=P, bos=B, eos=E)


@pytest.mark.parametrize(
    ("turns", "frames", "row"),
    [
        ([], 4, [P, P, P, P]),
        ([(2, 8, [5, 6, 7], "a")], 10, [P, P, B, 5, 6, 7, P, P, E, P]),
        ([(0, 4, [5, 6, 7], "fills")], 6, [B, 5, 6, 7, E, P]),
        ([(0, 2, [], "silent")], 4, [B, P, E, P]),
        ([(1, 3, [5], "a"), (4, 6, [6], "b")], 8, [P, B, 5, E, B, 6, E, P]),
        ([(1, 6, [5, 6], "ends with the session")], 6, [P, B, 5, 6, P, P]),
        ([(1, 5, [5, 6], "EOS in the last frame")], 6, [P, B, 5, 6, P, E]),
    ],
)
def test_a_row_frame_by_frame(turns, frames, row):
    stream = text_stream(turns, frames, TOKENS)
    assert stream.dtype == torch.int64 and stream.tolist() == row
    heard = [HeardTurn(start, end if end < frames else None, ids) for start, end, ids, _ in turns]
    assert turns_in(stream, TOKENS) == heard


@pytest.mark.parametrize(
    ("turns", "match"),
    [
        ([(2, 5, [5, 6, 7], "turn x")], "turn x has 3 tokens and a BOS for 3 frames.*shorten"),
        ([(2, 2, [], "turn x")], "turn x has 0 tokens and a BOS for 0 frames"),
        ([(2, 11, [5], "turn x")], "turn x ends at frame 11, after the session's 10 frames"),
        ([(-1, 5, [5], "turn x")], "turn x starts at frame -1"),
        ([(1, 5, [5], "turn w"), (4, 8, [5], "turn x")], "turn x starts at frame 4.*taken up to frame 6"),
        ([(1, 5, [5], "turn w"), (5, 8, [5], "turn x")], "turn x starts at frame 5.*taken up to frame 6"),
        ([(5, 8, [5], "turn w"), (1, 3, [5], "turn x")], "turn x starts at frame 1"),
    ],
)
def test_a_turn_that_does_not_fit_is_named(turns, match):
    with pytest.raises(ValueError, match=match):
        text_stream(turns, 10, TOKENS)


@pytest.mark.parametrize(
    ("row", "heard"),
    [
        ([P, 5, E, B, 6, P, 7, E, 8], [HeardTurn(3, 7, [6, 7])]),
        ([B, 5, B, 6, E, E], [HeardTurn(0, None, [5]), HeardTurn(2, 4, [6])]),
        ([E, P, 5, P], []),
        ([P, P, B], [HeardTurn(2, None, [])]),
    ],
)
def test_turns_of_a_row_that_a_model_wrote(row, heard):
    assert turns_in(torch.tensor(row), TOKENS) == heard


@pytest.mark.parametrize("seed", range(5))
def test_any_turns_that_fit_come_back(seed):
    generator = torch.Generator().manual_seed(seed)

    def draw(low, high):
        return int(torch.randint(low, high, (1,), generator=generator))

    turns, frame = [], draw(0, 5)
    for index in range(6):
        end = frame + draw(1, 9)
        turns.append(TextTurn(frame, end, [draw(3, 50) for _ in range(draw(0, end - frame))], f"turn {index}"))
        frame = end + draw(1, 4)
    assert turns_in(text_stream(turns, frame + 1, TOKENS), TOKENS) == [HeardTurn(*turn[:3]) for turn in turns]


def test_any_text_survives_the_tokenizer(tokenizer):
    for text in ("Paris is the capital.", "Zürich: 7 °C, naïve – 東京 🙂", " two  spaces "):
        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids) == text
        assert tokenizer.decode(torch.tensor([1, *ids, 0, 0, 2])) == text
        assert max(ids) < tokenizer.vocabulary <= 300 and not set(ids) & {0, 1, 2}
    assert tokenizer.tokens == TextTokens(pad=0, bos=1, eos=2)
    assert len(tokenizer.encode("capital")) < len("capital")


def test_a_control_token_spelt_out_in_a_text_is_an_error(tokenizer):
    with pytest.raises(ValueError, match="spells out a control token"):
        tokenizer.encode("the end </s> of it")


def test_a_tokenizer_without_its_control_tokens_is_named(tmp_path):
    path = str(tmp_path / "tokenizer.json")
    with pytest.raises(ValueError, match="no such file"):
        TextTokenizer(TokenizerConfig(path=path))
    Tokenizer(models.BPE()).save(path)
    with pytest.raises(ValueError, match="no token '<pad>'"):
        TextTokenizer(TokenizerConfig(path=path))
    with pytest.raises(ValueError, match="vocabulary 100"):
        train_tokenizer(["text"], 100, TokenizerConfig(path=path))


def turn_of(tokenizer, frames, interrupted, text="Paris is the capital.", speaker="agent"):
    turn = SimpleNamespace(
        id="t1", speaker=speaker, text=text, start=0.16, end=0.16 + 0.08 * frames, custom={"interrupted": interrupted}
    )
    return SimpleNamespace(id="cut-7", supervisions=[turn])


def test_an_interrupted_turn_has_what_was_said_before_its_eos(tokenizer, clock):
    ids = tokenizer.encode("Paris is the capital.")
    frames = len(ids)
    row = agent_text(turn_of(tokenizer, frames, True), frames + 4, tokenizer, clock).tolist()
    assert row == [P, P, B, *ids[:-1], E, P]
    row = agent_text(turn_of(tokenizer, frames + 1, False), frames + 5, tokenizer, clock).tolist()
    assert row == [P, P, B, *ids, E, P]
    with pytest.raises(ValueError, match="cut 'cut-7', agent turn 't1' 'Paris is the capital.' has"):
        agent_text(turn_of(tokenizer, frames, False), frames + 4, tokenizer, clock)


def test_the_users_text_is_not_the_agents(tokenizer, clock):
    assert agent_text(turn_of(tokenizer, 9, False, speaker="user"), 12, tokenizer, clock).tolist() == [P] * 12

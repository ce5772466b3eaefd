import pytest

from nemo_duplex.config import TimelineConfig
from nemo_duplex.data.timeline import BargeIn, PlacedTurn, SpokenTurn, activity, place

SMALL = {
    "lead_s": 0.16,
    "response_gap_s": 0.16,
    "user_gap_s": 0.24,
    "barge_in_overlap_s": 0.16,
    "barge_in_after_s": 0.44,
    "trailing_silence_s": 0.16,
}
SEEDS = range(8)


def spoken(*durations):
    return [SpokenTurn(("user", "agent")[index % 2], duration) for index, duration in enumerate(durations)]


def matrix(timeline, clock):
    rows = activity(timeline.turns, timeline.frames, clock)
    return ["".join(map(str, rows[speaker])) for speaker in ("user", "agent")]


@pytest.mark.parametrize("seed", SEEDS)
def test_turns_follow_each_other_with_their_gaps(clock, seed):
    config = TimelineConfig(**SMALL, barge_in_probability=0.0)
    assert matrix(place(spoken(0.24, 0.4, 0.2, 0.16), config, clock, seed), clock) == [
        "001110000000000111000000",
        "000000011111000000001100",
    ]


@pytest.mark.parametrize("seed", SEEDS)
def test_a_barge_in_cuts_the_agent_after_the_overlap(clock, seed):
    # the only moments left to the user lie 0.44 to 0.46 s after the agent's start, in frame 12
    config = TimelineConfig(**SMALL, barge_in_probability=1.0)
    timeline = place(spoken(0.24, 0.7, 0.24, 0.16), config, clock, seed)
    assert matrix(timeline, clock) == [
        "0011100000001111000000",
        "0000000111111110001100",
    ]
    assert [turn.interrupted for turn in timeline.turns] == [False, True, False, False]


@pytest.mark.parametrize("durations", [(0.24, 0.67, 0.24, 0.16), (0.24, 0.7)])
def test_a_short_turn_and_the_last_turn_are_not_interrupted(clock, durations):
    timeline = place(spoken(*durations), TimelineConfig(**SMALL, barge_in_probability=1.0), clock, 0)
    assert timeline.events == [] and not any(turn.interrupted for turn in timeline.turns)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_paper_holds_for_every_seed(clock, seed):
    config = TimelineConfig(barge_in_probability=0.7, user_gap_jitter_s=0.5)
    turns = spoken(1.3, 2.9, 0.3, 2.6, 2.2, 1.5, 1.11, 3.37)
    timeline = place(turns, config, clock, seed)
    assert timeline == place(turns, config, clock, seed)
    events = iter(timeline.events)
    for index in range(1, len(turns), 2):
        question, answer = timeline.turns[index - 1 : index + 1]
        following = timeline.turns[index + 1] if index + 1 < len(turns) else None
        assert clock.seconds(round(answer.start / clock.frame_s)) == pytest.approx(answer.start, abs=1e-9)
        assert config.response_gap_s - 1e-6 <= answer.start - question.end < config.response_gap_s + clock.frame_s
        if answer.interrupted:
            event = next(events)
            assert event == BargeIn(following.start, answer.end)
            assert answer.end - following.start == pytest.approx(config.barge_in_overlap_s)
            assert following.start - answer.start >= config.barge_in_after_s
            assert turns[index].duration - answer.duration >= config.barge_in_overlap_s / 2 - 1e-9
        else:
            assert answer.duration == turns[index].duration
            assert following is None or 0.64 <= following.start - answer.end + 1e-9 <= 0.64 + 0.5
    assert next(events, None) is None
    assert timeline.frames == clock.frames_in(max(turn.end for turn in timeline.turns) + config.trailing_silence_s)


def test_seeds_and_probability_matter(clock):
    turns = spoken(1.3, 2.9, 1.3, 2.6, 2.2, 1.5)
    half = [place(turns, TimelineConfig(barge_in_probability=0.5), clock, seed) for seed in range(40)]
    counts = [len(timeline.events) for timeline in half]
    assert set(counts) == {0, 1, 2} and 20 < sum(counts) < 60
    assert len({timeline.events[0].user_onset for timeline in half if timeline.events}) > 10


@pytest.mark.parametrize("seed", SEEDS)
def test_a_very_short_interruption_leaves_a_frame_between_the_agents_turns(clock, seed):
    config = TimelineConfig(response_gap_s=0.0, barge_in_probability=1.0)
    _, first, _, second = place(spoken(1.0, 3.0, 0.1, 2.0), config, clock, seed).turns
    assert first.interrupted and clock.frame_at(second.start) == clock.frames_in(first.end) + 1


def test_activity_counts_every_frame_that_speech_touches(clock):
    rows = activity([PlacedTurn("user", 0.15, 0.02), PlacedTurn("agent", 0.24, 0.16)], 6, clock)
    assert rows == {"user": [0, 1, 1, 0, 0, 0], "agent": [0, 0, 0, 1, 1, 0]}


@pytest.mark.parametrize(
    ("turns", "changes", "match"),
    [
        ([], {}, "at least one turn"),
        ([SpokenTurn("agent", 1.0)], {}, "turn 0 is 1 s of 'agent'"),
        (spoken(1.0, 0.0), {}, "turn 1 is 0 s"),
        (spoken(1.0, 1.0), {"barge_in_probability": 1.5}, "barge_in_probability 1.5"),
    ],
)
def test_bad_turns_and_probabilities_are_named(clock, turns, changes, match):
    with pytest.raises(ValueError, match=match):
        place(turns, TimelineConfig(**changes), clock, 0)

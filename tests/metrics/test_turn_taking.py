"""Every definition of turn_taking.py on small literal cases, in seconds."""

import pytest

from nemo_duplex.metrics.turn_taking import TurnScore, answers, barge_ins, false_alarms, score


def near(value):
    return pytest.approx(value, abs=1e-9)


def test_a_conversation():
    """Two answers on time, one barge-in that is heeded, no false alarm."""
    result = score(
        user_turns=[(0.4, 1.6), (4.0, 5.2)],
        agent_turns=[(2.24, 4.56), (5.84, 8.0)],
    )
    assert result.turn_taking() == {
        "precision": 1.0,
        "recall": 1.0,
        "latency_s": near(0.64),
        "latency_median_s": near(0.64),
        "count": 2,
    }
    assert result.barge_in() == {
        "success": 1.0,
        "latency_s": near(0.56),
        "latency_median_s": near(0.56),
        "false_alarm_rate": 0.0,
        "count": 1,
    }


@pytest.mark.parametrize(
    ("start", "timely"),
    [(1.99, False), (2.0, True), (3.0, True), (4.5, True), (4.51, False)],
)
def test_the_window_is_one_second_before_to_a_second_and_a_half_after_the_end(start, timely):
    result = score([(0.0, 3.0)], [(start, 9.0)])
    assert result.turn_taking()["precision"] == (1.0 if timely else 0.0)
    assert result.turn_taking()["recall"] == (1.0 if timely else 0.0)
    assert result.turn_taking()["latency_s"] == (near(start - 3.0) if timely else None)


def test_bounds_hold_for_times_made_of_frames():
    """0.1 * 3 > 0.3 as floats: 45 frames of 0.1 s after the end at 3.0 are still inside the window."""
    assert score([(0.0, 3.0)], [(0.1 * 45, 9.0)]).on_time == 1
    assert barge_ins([(0.1 * 3, 2.0)], [(0.0, 0.1 * 3 + 1.5)])[0].success
    assert barge_ins([(3 * 0.1, 2.0)], [(0.3, 4.0)]) == []


def test_no_agent_turns():
    result = score([(0.0, 1.0), (4.0, 5.0)], [])
    assert result.turn_taking()["precision"] is None
    assert result.turn_taking()["recall"] == 0.0
    assert result.turn_taking()["latency_s"] is None
    assert result.barge_in()["success"] is None
    assert result.barge_in()["false_alarm_rate"] == 0.0


def test_no_user_turns():
    result = score([], [(1.0, 2.0)])
    assert result.turn_taking() == {
        "precision": 0.0,
        "recall": None,
        "latency_s": None,
        "latency_median_s": None,
        "count": 0,
    }
    assert result.barge_in()["false_alarm_rate"] is None


def test_two_agent_turns_for_one_user_turn():
    """Both start in the window, so both are precise; the first answers, the second answers nobody."""
    agent = [(1.2, 1.6), (2.0, 3.0)]
    result = score([(0.0, 1.0)], agent)
    assert result.turn_taking()["precision"] == 1.0
    assert result.turn_taking()["recall"] == 1.0
    assert result.latencies == [near(0.2)]
    assert answers([(0.0, 1.0)], agent) == [0]


def test_one_agent_turn_answers_one_user_turn():
    """It starts in the windows of both; only the first is answered."""
    assert answers([(0.0, 1.0), (1.2, 2.0)], [(2.2, 4.0)]) == [0, None]
    assert score([(0.0, 1.0), (1.2, 2.0)], [(2.2, 4.0)]).turn_taking()["recall"] == 0.5


def test_matching_does_not_waste_agent_turns():
    """The first user turn takes the first start, so that the second start is left for the second user turn."""
    users, agents = [(0.0, 1.0), (1.5, 2.4)], [(2.2, 2.4), (3.0, 4.0)]
    assert answers(users, agents) == [0, 1]
    assert answers(users, list(reversed(agents))) == [1, 0]


def test_latency_is_negative_when_the_agent_is_early():
    assert score([(0.0, 2.0), (6.0, 8.0)], [(1.5, 3.0), (8.1, 9.0)]).latencies == [near(-0.5), near(0.1)]


def test_mean_and_median_latency_differ():
    ends = [(0.0, 1.0), (10.0, 11.0), (20.0, 21.0)]
    result = score(ends, [(1.1, 2.0), (11.2, 12.0), (22.2, 23.0)])
    assert result.turn_taking()["latency_s"] == near(0.5)
    assert result.turn_taking()["latency_median_s"] == near(0.2)


def test_a_backchannel_expects_no_answer():
    """The user says "mhm" at 3.0 while the agent talks on: no barge-in, no unanswered turn, no window to start in."""
    users, agents = [(0.0, 1.0), (3.0, 3.3)], [(1.5, 6.0), (4.5, 7.0)]
    result = score(users, agents, expected=[True, False])
    assert (result.expected, result.barge_ins, result.user_turns) == (1, 0, 2)
    assert result.turn_taking()["recall"] == 1.0
    assert result.turn_taking()["precision"] == 0.5
    assert score(users, agents).barge_ins == 1


@pytest.mark.parametrize(
    ("stop", "success", "latency"),
    [(3.0, True, 1.0), (3.5, True, 1.5), (3.51, False, 1.51), (9.0, False, 7.0), (None, False, None)],
)
def test_barge_in_succeeds_when_the_agent_stops_in_time(stop, success, latency):
    found = barge_ins([(2.0, 4.0)], [(0.0, stop)])
    assert [item.success for item in found] == [success]
    assert found[0].latency == (None if latency is None else near(latency))
    assert score([(2.0, 4.0)], [(0.0, stop)]).barge_in()["success"] == float(success)


def test_latency_of_barge_in_is_over_successes_only():
    result = score([(2.0, 3.0), (12.0, 13.0)], [(1.0, 2.4), (11.0, 19.0)])
    assert result.barge_in()["success"] == 0.5
    assert result.barge_in()["latency_s"] == near(0.4)
    assert result.barge_in()["count"] == 2


def test_onsets_outside_agent_turns_are_no_barge_ins():
    agent = [(2.0, 4.0)]
    assert barge_ins([(1.0, 1.9)], agent) == []
    assert barge_ins([(2.0, 3.0)], agent) == []
    assert barge_ins([(4.0, 5.0)], agent) == []
    assert len(barge_ins([(2.1, 3.0)], agent)) == 1


def test_an_agent_that_begins_anew_without_a_pause_has_not_stopped():
    """A BOS inside a turn: the turns adjoin at 2.5, the agent is silent from 6.0."""
    found = barge_ins([(2.0, 3.0)], [(1.0, 2.5), (2.5, 6.0)])
    assert [item.stop for item in found] == [6.0]
    assert not found[0].success
    assert barge_ins([(2.0, 3.0)], [(1.0, 2.5), (2.5, None)])[0].stop is None
    assert barge_ins([(2.0, 3.0)], [(1.0, 2.5), (2.6, 6.0)])[0].stop == 2.5


@pytest.mark.parametrize(
    ("start", "alarm"),
    [(0.9, False), (1.0, True), (2.0, True), (2.85, True), (2.9, False), (2.95, False), (3.0, False)],
)
def test_false_alarm_when_the_user_goes_on_for_more_than_a_tenth_of_a_second(start, alarm):
    assert false_alarms([(1.0, 3.0)], [(start, 5.0)]) == ([0] if alarm else [])


def test_an_early_start_is_on_time_and_a_false_alarm():
    result = score([(0.0, 3.0)], [(2.5, 5.0)])
    assert result.turn_taking()["precision"] == 1.0
    assert result.barge_in()["false_alarm_rate"] == 1.0


def test_false_alarm_rate_is_over_user_turns_and_counts_each_start():
    result = score([(0.0, 3.0), (6.0, 7.0)], [(0.5, 0.8), (1.0, 1.4), (1.6, 2.0), (7.5, 8.0)])
    assert result.barge_in()["false_alarm_rate"] == 1.5


def test_a_start_in_a_backchannel_is_a_false_alarm_over_all_user_turns():
    result = score([(0.0, 1.0), (3.0, 3.6)], [(3.2, 5.0)], expected=[True, False])
    assert result.barge_in()["false_alarm_rate"] == 0.5


def test_counts_are_pooled_over_sessions():
    """1 of 1 and 1 of 3 make 2 of 4, not the average 2/3."""
    one = score([(0.0, 1.0)], [(1.5, 3.0)])
    other = score([(0.0, 1.0), (10.0, 11.0), (20.0, 21.0)], [(1.9, 3.0), (15.0, 16.0), (17.0, 18.0)])
    both = one + other
    assert both.turn_taking()["recall"] == 0.5
    assert both.turn_taking()["precision"] == 0.5
    assert both.turn_taking()["latency_s"] == near(0.7)
    assert both.turn_taking()["count"] == 4
    assert sum([one, other], TurnScore()) == both
    assert one == score([(0.0, 1.0)], [(1.5, 3.0)])


def test_flags_must_fit_the_turns():
    with pytest.raises(AssertionError, match="expected 1 flags, got 2"):
        score([(0.0, 1.0)], [], expected=[True, True])

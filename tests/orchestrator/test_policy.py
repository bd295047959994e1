"""Division of the pool: nothing is promised twice, nothing lies idle, priority, fair shares and age decide."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.policy import Demand, Rules, allot, averaged
from orchestrator.records import Capacity, Place

SLACK = 1e-6
HOUR = 3600.0


def pool(cpus: float, gpus: float = 0) -> Capacity:
    return Capacity(cpus=cpus, gpus=gpus, free_cpus=cpus, free_gpus=gpus, nodes=1)


def demand(sweep_id: int, **changes) -> Demand:
    words = {"name": f"s{sweep_id}", "priority": 50, "trials": 6, "cpus": 1.0, "gpus": 0.0, "started": False}
    return Demand(sweep_id=sweep_id, **(words | changes))


def running(sweep_id: int, held: int = 1, **changes) -> Demand:
    return demand(sweep_id, **({"started": True, "slots": held, "running": held} | changes))


def slots(found) -> list[int]:
    return [found[sweep_id].slots for sweep_id in sorted(found)]


def test_one_sweep_gets_the_whole_pool():
    assert slots(allot([demand(1)], pool(2))) == [2]


def test_two_sweeps_share():
    assert slots(allot([running(1), demand(2)], pool(2))) == [1, 1]


def test_a_share_shrinks_as_trials_end_and_the_other_starts_when_there_is_room():
    before = allot([running(1, 2), demand(2)], pool(2))
    assert slots(before) == [1, 0]
    assert before[2].reason == "waits for 1 CPU; 0 of 2 CPUs are free; ahead of it: s1"
    still = allot([running(1, 1, running=2), demand(2)], pool(2))
    assert slots(still) == [1, 0]
    assert slots(allot([running(1, 1), demand(2)], pool(2))) == [1, 1]


def test_higher_priority_is_served_first_and_the_other_told_what_is_ahead():
    found = allot([demand(1), demand(2, priority=90)], pool(1))
    assert slots(found) == [0, 1]
    assert found[1].reason == "waits for 1 CPU; 0 of 1 CPUs are free; ahead of it: s2"


def test_a_started_sweep_keeps_its_place_against_newcomers_of_its_priority():
    assert slots(allot([demand(1), running(2)], pool(1))) == [0, 1]


def test_a_started_sweep_gives_way_to_a_higher_priority_and_is_told_to_which():
    found = allot([running(1), demand(2, priority=51)], pool(1))
    assert slots(found) == [0, 0]  # its room is given when its driver is gone
    assert found[1].reason == "preempted by s2 of priority 51"
    assert slots(allot([running(1, stopping=True), demand(2, priority=51)], pool(1))) == [0, 0]
    assert slots(allot([demand(1), demand(2, priority=51)], pool(1))) == [0, 1]


def test_the_lowest_and_youngest_gives_way_and_no_more_of_them_than_need_be():
    lower = [running(i, priority=priority, trials=1) for i, priority in ((1, 10), (2, 10), (3, 20))]
    assert slots(allot([*lower, demand(4, trials=1)], pool(3))) == [1, 0, 1, 0]


def test_nobody_is_stopped_in_vain():
    found = allot([running(1, priority=10), running(2, 3, trials=3), demand(3, cpus=4.0, priority=20)], pool(4))
    assert slots(found)[:2] == [1, 3]


def test_what_waited_long_before_it_ran_is_not_stopped_by_newcomers():
    old = running(1, priority=50, waited_s=3 * HOUR)
    assert slots(allot([old, demand(2, priority=52)], pool(1))) == [1, 0]
    assert slots(allot([old, demand(2, priority=54)], pool(1))) == [0, 0]


def test_the_room_of_what_is_stopped_is_not_lent_away():
    leaving = running(1, priority=10, stopping=True)
    found = allot([leaving, demand(2, cpus=4.0, priority=90), demand(3)], pool(4))
    assert slots(found) == [0, 0, 0]
    assert found[3].reason.endswith("room is kept for s2")


def test_a_priority_rises_with_the_time_that_its_sweeps_wait():
    old, new = demand(1, waited_s=6 * HOUR), demand(2, priority=55)
    assert slots(allot([old, new], pool(1))) == [1, 0]
    assert slots(allot([dataclasses.replace(old, waited_s=4 * HOUR), new], pool(1))) == [0, 1]


def test_projects_share_evenly_whatever_the_number_of_their_sweeps_and_users():
    crowd = [demand(i, project="a", user=f"u{i}") for i in range(1, 6)]
    found = allot([*crowd, demand(6, project="b", user="v")], pool(8))
    assert found[6].slots == 4


def test_users_of_a_project_share_evenly():
    found = allot([demand(1, user="a"), demand(2, user="a"), demand(3, user="b")], pool(8))
    assert slots(found) == [2, 2, 4]


def test_weights_of_projects_and_users():
    rules = Rules(weights={"a": 3.0, "b/y": 2.0})
    found = allot(
        [demand(1, project="a"), demand(2, project="b", user="x"), demand(3, project="b", user="y")],
        pool(12),
        rules=rules,
    )
    assert slots(found) == [6, 2, 4]  # a could have 9, but has no more work


def test_past_usage_counts_against_an_account():
    sweeps = [demand(1, project="a", user="u"), demand(2, project="b", user="u")]
    assert slots(allot(sweeps, pool(1), {("a", "u"): 0.2, ("b", "u"): 0.1})) == [0, 1]
    assert slots(allot(sweeps, pool(1), {("a", "u"): 0.1, ("b", "u"): 0.2})) == [1, 0]


def test_usage_halves_in_a_half_life_and_grows_to_what_is_held():
    assert averaged(0.8, 0.0, held_s=10, passed_s=10, half_life_s=10) == pytest.approx(0.4)
    held = 0.0
    for _ in range(500):
        held = averaged(held, 0.3, held_s=1, passed_s=1, half_life_s=10)
    assert held == pytest.approx(0.3, rel=1e-6)
    at_once = averaged(0.0, 0.3, held_s=20, passed_s=20, half_life_s=10)
    assert at_once == pytest.approx(0.3 * 0.75)


def test_a_quota_bounds_a_project_and_says_so():
    rules = Rules(quotas={"a": 0.5})
    found = allot([demand(1, project="a"), demand(2, project="a")], pool(2), rules=rules)
    assert slots(found) == [1, 0]
    assert found[2].reason == "waits for 1 CPU; project a holds its quota of 50% of the pool"


def test_no_more_than_there_is_work():
    assert slots(allot([demand(1, trials=1)], pool(8))) == [1]


def pooled(**pools: tuple[float, float]) -> Capacity:
    """A node for each pool; `default` has no label."""
    places = tuple(
        Place(labels={"pool": name} if name != "default" else {}, memory_bytes=1, node_id=name, cpus=cpus, gpus=gpus)
        for name, (cpus, gpus) in pools.items()
    )
    cpus, gpus = sum(place.cpus for place in places), sum(place.gpus for place in places)
    return Capacity(cpus=cpus, gpus=gpus, free_cpus=cpus, free_gpus=gpus, nodes=len(places), places=places)


def test_each_pool_is_divided_by_itself_and_named_in_the_sentence():
    found = allot(
        [demand(1), running(2, 2, gpus=3.0, pool="h100"), demand(3, gpus=4.0, pool="h100"), demand(4, pool="gone")],
        pooled(default=(2, 0), h100=(64, 8)),
    )
    assert slots(found) == [2, 1, 0, 0]  # and one of the two that s2 holds is due to s3
    assert found[3].reason == (
        "waits for 1 CPU and 4 GPUs of pool h100; 62 of 64 CPUs and 2 of 8 GPUs are free; ahead of it: s2"
    )
    assert found[4].reason == "waits for 1 CPU of pool gone; the whole pool has 0 CPUs and no GPU"


def test_small_work_fills_what_big_work_leaves():
    assert slots(allot([demand(1, cpus=3.0), demand(2)], pool(4))) == [1, 1]


class TestGaps:
    """Three of four CPUs run for 100 s more; a sweep that waits wants all four."""

    long = running(1, cpus=3.0, trials=1, open_trials=1, trial_s=100.0, ends_s=(100.0,))
    big = demand(2, cpus=4.0, waited_s=HOUR)

    def test_are_filled_by_what_ends_before_the_big_one_can_start(self):
        short = demand(3, trials=1, open_trials=1, trial_s=90.0)
        assert slots(allot([self.long, self.big, short], pool(4))) == [1, 0, 1]

    def test_are_not_filled_by_what_would_delay_it_and_both_are_told(self):
        slow = demand(3, trials=1, open_trials=2, trial_s=90.0)
        found = allot([self.long, self.big, slow], pool(4))
        assert slots(found) == [1, 0, 0]
        assert found[2].reason.startswith("waits for 4 CPUs; 1 of 4 CPUs are free, and room is kept for it")
        assert "room is kept for s2" in found[3].reason

    def test_are_filled_by_what_fits_beside_it(self):
        slow = demand(3, trials=1, trial_s=1000.0)
        assert slots(allot([self.long, self.big, slow], pool(5))) == [1, 0, 1]

    def test_are_filled_by_anything_while_it_has_not_waited_long(self):
        slow = demand(3, trials=1, trial_s=1000.0)
        new = dataclasses.replace(self.big, waited_s=60.0)
        assert slots(allot([self.long, new, slow], pool(4))) == [1, 0, 1]


class TestOvertaken:
    """A sweep of two CPUs waited for five hours while others took one after the other."""

    waits = demand(2, cpus=2.0, waited_s=5 * HOUR, project="b")

    def test_by_accounts_that_hold_more_it_stops_them(self):
        others = [running(i, trials=1, project="a") for i in (1, 3, 4)]
        assert slots(allot([others[0], self.waits, *others[1:]], pool(3))) == [1, 0, 0, 0]

    def test_by_accounts_that_had_less_it_waits(self):
        others = [running(i, trials=1, project="a") for i in (1, 3, 4)]
        found = allot([others[0], self.waits, *others[1:]], pool(3), {("b", "anonymous"): 1.5})
        assert slots(found) == [1, 0, 1, 1]

    def test_by_younger_ones_of_its_own_user_it_stops_them(self):
        others = [running(i, trials=1, project="b") for i in (1, 3, 4)]
        assert slots(allot([others[0], self.waits, *others[1:]], pool(3))) == [1, 0, 0, 0]


class TestBigTrials:
    """Parts of a pool of 16 CPUs come free one by one; a trial that takes all of it would wait for ever."""

    big = demand(9, cpus=16.0, waited_s=5 * HOUR, project="b")

    @staticmethod
    def small(**changes) -> list[Demand]:
        return [running(i, 2, trials=2, project="a", **changes) for i in range(1, 9)]

    def test_make_themselves_room_after_hours_and_come_first_then_whoever_used_less(self):
        found = allot([*self.small(), self.big], pool(16))
        assert slots(found) == [0] * 9
        assert found[1].reason == "preempted by s9 of priority 50"
        stopped = self.small(started=False, slots=0, running=0)
        assert slots(allot([*stopped, self.big], pool(16), {("b", "anonymous"): 0.9})) == [0] * 8 + [1]

    def test_stop_none_that_waited_nearly_as_long(self):
        found = allot([*self.small(waited_s=2 * HOUR), self.big], pool(16))
        assert all(given > 0 for given in slots(found)[:8])

    def test_keep_no_room_before_that_for_it_would_lie_idle_for_hours(self):
        waits = dataclasses.replace(self.big, waited_s=HOUR)
        small = self.small()
        found = allot([*small[:7], demand(8, trials=2, project="a"), waits], pool(16))
        assert slots(found) == [2] * 8 + [0]


def test_what_the_whole_pool_could_not_hold_keeps_no_room():
    found = allot([demand(1, gpus=8.0, waited_s=HOUR), demand(2)], pool(2, 4))
    assert slots(found) == [0, 2]
    assert found[1].reason == "waits for 1 CPU and 8 GPUs; the whole pool has 2 CPUs and 4 GPUs"


def test_a_pool_that_shrank_stops_nobody():
    assert slots(allot([running(1, 2), running(2, 2)], pool(1))) == [1, 1]


PROJECTS = st.sampled_from(["a", "b", "c"])


@st.composite
def labs(draw, max_size: int = 12):
    """(demands, pool): what runs fits the pool, as it does unless the pool shrinks."""
    cpus, gpus = draw(st.integers(1, 16)), draw(st.integers(0, 8))
    left = [float(cpus), float(gpus)]
    demands = []
    for sweep_id in range(1, draw(st.integers(0, max_size)) + 1):
        need = (draw(st.sampled_from([1.0, 2.0, 4.0])), draw(st.sampled_from([0.0, 0.25, 0.5, 1.0, 2.0])))
        fits = int(min(have // each if each else 99 for have, each in zip(left, need, strict=True)))
        held = draw(st.integers(0, min(fits, 4)))
        left = [have - held * each for have, each in zip(left, need, strict=True)]
        trials = draw(st.integers(0, 9))
        demands.append(
            Demand(
                sweep_id=sweep_id,
                name=f"s{sweep_id}",
                priority=draw(st.sampled_from([10, 50, 50, 90])),
                trials=trials,
                open_trials=trials + draw(st.integers(0, 9)),
                cpus=need[0],
                gpus=need[1],
                started=held > 0,
                stopping=held > 0 and (trials == 0 or draw(st.integers(0, 5)) == 0),
                slots=draw(st.integers(1, held)) if held else 0,
                running=held,
                project=draw(PROJECTS),
                user=draw(st.sampled_from(["u", "v"])),
                waited_s=draw(st.sampled_from([0.0, 700.0, 8 * HOUR, 30 * HOUR])),
                trial_s=draw(st.sampled_from([None, 60.0, HOUR])),
                ends_s=(30.0,) * draw(st.integers(0, held)),
            )
        )
    return demands, pool(cpus, gpus)


@settings(deadline=None)
@given(labs())
def test_a_decision_carried_out_is_not_taken_back(lab):
    """Once all that shrinks has shrunk, the same question has the same answer: nothing goes back and forth.

    Room that is kept for somebody is lent for a trial at a time, and comes back.
    """
    demands, size = lab
    for _ in range(6):
        found = allot(demands, size)
        demands = [
            dataclasses.replace(
                each,
                started=found[each.sweep_id].slots > 0,
                stopping=False,
                slots=found[each.sweep_id].slots,
                running=found[each.sweep_id].slots,
                ends_s=(),
            )
            for each in demands
        ]
    again = allot(demands, size)
    if not any("room is kept" in allotment.reason for allotment in again.values()):
        assert slots(found) == slots(again)


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.tuples(PROJECTS, st.integers(1, 5)), min_size=1, max_size=20),
    st.sampled_from([{}, {"a": 2.0}, {"a": 0.5, "b": 3.0}]),
    st.integers(2, 24),
)
def test_shares_are_even_for_their_weights_up_to_one_trial(sweeps, weights, cpus):
    """Of two projects, one has a trial's share more than the other for its weight only where the other has no work."""
    demands = [demand(i, project=name, trials=trials) for i, (name, trials) in enumerate(sweeps, 1)]
    found = allot(demands, pool(cpus), rules=Rules(weights=weights))
    held = {name: sum(found[d.sweep_id].slots for d in demands if d.project == name) for name, _ in sweeps}
    wanted = {name: sum(d.trials for d in demands if d.project == name) for name, _ in sweeps}
    for poor in held:
        for rich in held:
            if held[poor] < wanted[poor]:
                assert (held[rich] - 1) / weights.get(rich, 1.0) <= held[poor] / weights.get(poor, 1.0) + SLACK

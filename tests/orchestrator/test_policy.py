"""Division of the pool: nothing is promised twice, nothing lies idle, priority and age decide."""

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.policy import Demand, allot
from orchestrator.records import Capacity


def pool(cpus: float, gpus: float = 0) -> Capacity:
    return Capacity(cpus=cpus, gpus=gpus, free_cpus=cpus, free_gpus=gpus, nodes=1)


def demand(sweep_id: int, **changes) -> Demand:
    words = {"name": f"s{sweep_id}", "priority": 50, "trials": 6, "cpus": 1.0, "gpus": 0.0, "started": False}
    return Demand(sweep_id=sweep_id, **(words | changes))


def test_one_sweep_gets_the_whole_pool():
    assert allot([demand(1)], pool(2))[1].slots == 2


def test_two_sweeps_share():
    found = allot([demand(1, started=True), demand(2)], pool(2))
    assert (found[1].slots, found[2].slots) == (1, 1)


def test_higher_priority_is_served_first_and_the_other_told_what_is_ahead():
    found = allot([demand(1), demand(2, priority=90)], pool(1))
    assert found[2].slots == 1
    assert found[1].slots == 0
    assert found[1].reason == "waits for 1 CPU; 0 of 1 CPUs are free; ahead of it: s2"


def test_a_started_sweep_keeps_its_place_against_newcomers_of_its_priority():
    found = allot([demand(1), demand(2, started=True)], pool(1))
    assert (found[1].slots, found[2].slots) == (0, 1)


def test_no_more_than_there_is_work():
    assert allot([demand(1, trials=1)], pool(8))[1].slots == 1


def test_small_work_fills_what_big_work_leaves():
    found = allot([demand(1, cpus=3.0), demand(2)], pool(4))
    assert (found[1].slots, found[2].slots) == (1, 1)


DEMANDS = st.lists(
    st.builds(
        Demand,
        sweep_id=st.integers(1, 10**6),
        name=st.just("s"),
        priority=st.integers(0, 100),
        trials=st.integers(0, 9),
        cpus=st.sampled_from([1.0, 2.0, 4.0]),
        gpus=st.sampled_from([0.0, 0.25, 0.5, 1.0, 2.0]),
        started=st.booleans(),
    ),
    max_size=12,
    unique_by=lambda d: d.sweep_id,
)


@given(DEMANDS, st.integers(0, 16), st.integers(0, 8))
def test_never_over_committed_and_work_conserving(demands, cpus, gpus):
    found = allot(demands, pool(cpus, gpus))
    used_cpus = sum(found[d.sweep_id].slots * d.cpus for d in demands)
    used_gpus = sum(found[d.sweep_id].slots * d.gpus for d in demands)
    assert used_cpus <= cpus + 1e-6
    assert used_gpus <= gpus + 1e-6
    for each in demands:
        fits = each.cpus <= cpus - used_cpus and each.gpus <= gpus - used_gpus
        assert not fits or found[each.sweep_id].slots == each.trials
        assert found[each.sweep_id].slots or found[each.sweep_id].reason

"""The benchmark compares like with like: each operation agrees with its peer before it is timed."""

import itertools

import pytest

from kernels.bench import moe

TINY = itertools.chain(
    moe.routing(12, 5, 2), moe.permutation(12, 4, 5, 2), moe.products(20, 4, 6, 3), moe.layers(12, 4, 6)
)


@pytest.mark.parametrize("comparison", TINY, ids=lambda comparison: comparison.name)
def test_each_operation_agrees_with_its_peer_and_gives_finite_times(comparison):
    assert all(0 < figure < float("inf") for figure in moe.measure(comparison, rounds=1))

"""Around a trained mixture: recorded loads, pruning, placement, buffering, and what padding would cost."""

from __future__ import annotations

import copy
import itertools

import pytest
import torch

from workloads import build_feedforward
from workloads.feedforward.moe import MoE
from workloads.serving import placement
from workloads.serving.buffering import BufferedExperts, Residents, fetching_ahead, least_misses, replay
from workloads.serving.padding import expected_waste, padded_mix
from workloads.serving.pruning import can_reroute, norm_change, pruned, router_norms, strongest
from workloads.serving.recording import recording
from workloads.slots import LayerContext

D, E, B, T = 16, 8, 3, 12
N = B * T


def moe(router: str = "topk", **options) -> MoE:
    torch.manual_seed(0)
    layer = build_feedforward("moe", D, num_experts=E, expert_hidden=8, router={"name": router, **options})
    layer.router.gate.weight.data *= 20
    return layer.eval()


def hidden(seed: int = 0, batch: int = B) -> torch.Tensor:
    return torch.randn(batch, T, D, generator=torch.Generator().manual_seed(seed))


def recorded(layer: MoE, batches: int = 20) -> tuple[torch.Tensor, list[list[int]]]:
    with recording(layer) as record, torch.no_grad():
        for seed in range(batches):
            layer(hidden(seed) + torch.linspace(-1, 1, D) * (seed % 3))
    return record.loads(""), record.trace("")


def test_loads_are_the_assignments_of_each_batch():
    layer = moe()
    loads, trace = recorded(layer)
    assert loads.shape == (E, 20)
    assert (loads.sum(0) == 2 * N).all()
    assert trace[0] == loads[:, 0].nonzero().flatten().tolist()
    layer(hidden())
    assert len(trace) == 20, "recording ends with its context"


def test_keeping_all_experts_changes_nothing():
    for mode in ("skip", "reroute"):
        torch.testing.assert_close(pruned(moe(), range(E), mode)(hidden()), moe()(hidden()))


def test_pruning_experts_without_load_changes_nothing():
    layer = moe()
    layer.router.gate.weight.data[5:] = 0
    layer.router.gate.weight.data[:5] = layer.router.gate.weight.data[:5].abs()
    x = hidden().abs()
    with recording(layer) as record:
        expected = layer(x)
    assert record.loads("")[5:].sum() == 0
    torch.testing.assert_close(pruned(layer, range(5))(x), expected)


def test_a_skipped_choice_leaves_the_other_s_weight_and_a_rerouted_token_chooses_anew():
    layer, keep = moe(), [0, 2, 3, 6]
    tokens = hidden().view(N, D)
    plan = layer.router(tokens)
    skipped = pruned(layer, keep).router(tokens)
    kept = torch.isin(plan.expert, torch.tensor(keep))
    assert torch.equal(skipped.weight, plan.weight[kept])
    assert torch.equal(torch.tensor(keep)[skipped.expert], plan.expert[kept])
    assert 0 < skipped.stats["pruned_frac"] < 1
    rerouted = pruned(layer, keep, "reroute").router(tokens)
    z = (tokens @ layer.router.gate.weight.t())[:, keep]
    assert torch.equal(rerouted.expert.view(N, 2), z.topk(2).indices)


def test_the_original_layer_is_left_alone():
    layer = moe()
    before = layer(hidden())
    pruned(layer, [0, 1], "reroute")
    assert torch.equal(layer(hidden()), before)
    assert layer.num_experts == E


def test_experts_are_chosen_by_how_much_their_vectors_grew():
    before, after = moe().router, moe().router
    growth = torch.tensor([0.0, 3.0, -0.5, 1.0, 0.2, 5.0, 0.1, 0.3])
    after.gate.weight.data *= (1 + growth / router_norms(before))[:, None]
    torch.testing.assert_close(norm_change(before, after), growth, rtol=1e-4, atol=1e-5)
    assert strongest(norm_change(before, after), 3) == [1, 3, 5]


def test_routers_without_vectors_have_no_norms():
    torch.manual_seed(0)
    layer = build_feedforward("moe", D, num_experts=E, router="hash")
    with pytest.raises(ValueError, match="prune by load"):
        router_norms(layer.router)
    with pytest.raises(ValueError, match='mode="skip"'):
        pruned(layer, [0, 1], "reroute")


@pytest.mark.parametrize("router", ["cmr", "pre_gated", "deepseek_moe", "acm"])
def test_gates_without_one_vector_an_expert_are_not_cut(router):
    torch.manual_seed(0)
    layer = build_feedforward("moe", D, num_experts=E, router=router)
    assert not can_reroute(layer.router)
    with pytest.raises(ValueError, match='mode="skip"'):
        pruned(layer, [0, 1], "reroute")
    assert pruned(layer, [0, 1])(hidden()).shape == (B, T, D)


@pytest.mark.parametrize("router", ["rmoe", "aw_moe", "gshard", "switch", "adaptive_gating", "eom"])
def test_gates_with_one_vector_an_expert_are_cut_to_the_kept_ones(router):
    torch.manual_seed(0)
    layer = build_feedforward("moe", D, num_experts=E, router=router).eval()
    cut = pruned(layer, [1, 4, 6], "reroute")
    plan = cut.router(hidden().view(N, D), LayerContext(shape=(B, T)))
    assert plan.expert.max() < 3
    assert cut(hidden()).isfinite().all()


@pytest.mark.parametrize("keep", [[], [3, 1], [0, 0], [0, E]])
def test_experts_to_keep_must_exist_once_each(keep):
    with pytest.raises(ValueError, match="ascending, once each"):
        pruned(moe(), keep)


def test_every_device_gets_its_number_of_experts_and_the_load_evens_out():
    generator = torch.Generator().manual_seed(0)
    loads = torch.rand(E, 50, generator=generator) * torch.tensor([9.0, 8, 7, 6, 1, 1, 1, 1])[:, None]
    naive = placement.largest_share(loads, placement.in_order(E, 4), 4)
    for method in ("greedy", "anticorrelated"):
        found = placement.place(loads, 4, method)
        assert torch.bincount(found, minlength=4).tolist() == [2] * 4
        assert placement.largest_share(loads, found, 4) < 0.8 * naive


def test_experts_that_are_busy_together_are_kept_apart():
    wave = torch.arange(40) % 2
    loads = torch.stack([10 + 8 * wave, 10 + 8 * wave, 18 - 8 * wave, 18 - 8 * wave]).float()
    found = placement.place(loads, 2, "anticorrelated")
    assert found[0] != found[1]
    assert placement.largest_share(loads, found, 2) == pytest.approx(0.5)


def test_one_expert_a_device_leaves_no_choice():
    loads = torch.rand(4, 6, generator=torch.Generator().manual_seed(0))
    shares = {
        round(placement.largest_share(loads, torch.tensor(order), 4), 6) for order in itertools.permutations(range(4))
    }
    assert len(shares) == 1
    assert placement.largest_share(loads, placement.place(loads, 4), 4) == pytest.approx(shares.pop(), abs=1e-6)


def test_devices_must_divide_the_experts():
    with pytest.raises(ValueError, match=r"devices \(3\) must divide the 8 experts"):
        placement.place(torch.ones(8, 1), 3)


def test_lifo_evicts_idle_experts_first_and_then_the_last_in():
    residents = Residents(2)
    turns = [residents.use(expert, [0, 1, 2]) for expert in (0, 1, 2)]
    assert [evicted for _, evicted in turns] == [None, None, 1]
    assert residents.use(5, [5])[1] == 2


@pytest.mark.parametrize("policy", ["lifo", "lru"])
def test_no_policy_misses_less_than_the_one_that_knows_the_future(policy):
    _, trace = recorded(moe(k=1), 30)
    for slots in (2, 4, 6):
        misses = sum(not use.hit for use in replay(trace, slots, policy))
        assert least_misses(trace, slots) <= misses
    assert sum(not use.hit for use in replay(trace, E, policy)) <= E


def test_lifo_is_nearer_to_the_best_than_lru_when_experts_run_in_order():
    trace = [list(range(E))] * 20
    lifo, lru = (sum(not use.hit for use in replay(trace, 4, policy)) for policy in ("lifo", "lru"))
    assert lru == E * 20
    assert lifo < 0.7 * lru


def test_buffered_experts_give_the_same_output_and_measure_their_hits():
    layer = moe(k=1)
    batches = [hidden(seed, batch=1) for seed in range(10)]
    expected = [layer(x) for x in batches]
    with recording(layer) as record:
        for x in batches:
            layer(x)
    size = sum(getattr(layer.experts, part)[0].numel() * 4 for part in ("gate", "up", "down"))
    layer.experts = BufferedExperts(layer.experts, slots=3)
    for x, y in zip(batches, expected, strict=True):
        torch.testing.assert_close(layer(x), y, rtol=1e-4, atol=1e-6)
    counter = layer.experts.counter
    uses = replay(record.trace(""), 3)
    assert (counter.hits, counter.misses) == (sum(u.hit for u in uses), sum(not u.hit for u in uses))
    assert 0 < counter.hit_rate < 1
    assert counter.bytes_moved == counter.misses * size


def a_stack(level: int = 1, depth: int = 3, slots: int = 4) -> list[MoE]:
    """Pre-gated layers of one model, their experts behind buffers."""
    layers = [moe_layer(level) for _ in range(depth)]
    for index, layer in enumerate(layers):
        layer.place(layers, index)
    for layer in layers:
        layer.experts = BufferedExperts(layer.experts, slots=slots)
    return layers


def moe_layer(level: int) -> MoE:
    router = {"name": "pre_gated", "level": level, "k": 1}
    return build_feedforward("moe", D, num_experts=E, expert_hidden=8, router=router).eval()


def decode(layers: list[MoE], steps: int = 12) -> torch.Tensor:
    """Pass token by token through all layers."""
    outputs = []
    for x in hidden(batch=1)[0, :steps]:
        where, stream = LayerContext(), x.view(1, 1, D)
        for where.layer, layer in enumerate(layers):
            stream = stream + layer(stream, where)
        outputs.append(stream)
    return torch.cat(outputs)


@pytest.mark.parametrize("level", [1, 2])
def test_a_gate_below_has_the_experts_there_before_their_turn(level):
    torch.manual_seed(0)
    plain = a_stack(level)
    ahead = copy.deepcopy(plain)
    expected = decode(plain)
    with fetching_ahead(ahead):
        assert torch.equal(decode(ahead), expected)
    for depth, (layer, other) in enumerate(zip(ahead, plain, strict=True)):
        counter = layer.experts.counter
        assert other.experts.counter.misses > 1
        if depth < level:
            assert (counter.misses, counter.fetched_ahead) == (other.experts.counter.misses, 0)
        else:
            assert (counter.misses, counter.fetched_ahead) == (0, other.experts.counter.misses)
        assert counter.bytes_moved == other.experts.counter.bytes_moved


def test_the_next_layer_s_experts_are_on_their_way_before_this_layer_s_run():
    torch.manual_seed(0)
    first, second = layers = a_stack(depth=2)
    order: list[str] = []
    first.experts.register_forward_pre_hook(lambda *_: order.append("first layer runs"))
    second.experts.register_forward_pre_hook(lambda *_: order.append("second layer runs"))
    load = second.experts._load
    second.experts._load = lambda expert: (order.append("second layer's expert is loaded"), load(expert))
    with fetching_ahead(layers):
        decode(layers, steps=1)
    assert order == ["second layer's expert is loaded", "first layer runs", "second layer runs"]


def test_no_more_is_fetched_ahead_than_there_is_room_for():
    residents = Residents(3)
    for expert in (0, 5):
        residents.use(expert, [expert])
    assert residents.missing([1, 2, 5, 6]) == [1, 2]
    assert residents.missing([0, 5]) == []


def test_a_buffer_needs_a_slot_and_a_known_policy():
    with pytest.raises(ValueError, match="slots must be at least 1"):
        Residents(0)
    with pytest.raises(ValueError, match="policy must be one of lifo, lru"):
        Residents(1, "fifo")


@pytest.mark.parametrize("router", ["topk", "switch", "expert_choice"])
def test_with_room_for_all_padding_gives_the_dropless_result_at_many_times_the_rows(router):
    layer, tokens = moe(router), hidden().view(N, D)
    routing = layer.router(tokens, LayerContext(shape=(B, T)))
    dropless, _ = layer.mix(tokens, routing)
    padded = padded_mix(layer, tokens, routing, capacity=N)
    torch.testing.assert_close(padded.y, dropless, rtol=1e-4, atol=1e-6)
    assert padded.rows == E * N
    assert padded.used == len(routing.token)
    if router == "topk":
        assert padded.waste == expected_waste(E, 1.0, 2) == 4.0


def test_tight_padding_drops_in_order():
    layer, tokens = moe(k=1), hidden().view(N, D)
    routing = layer.router(tokens)
    padded = padded_mix(layer, tokens, routing, capacity=2)
    assert padded.used == torch.bincount(routing.expert, minlength=E).clamp(max=2).sum()


def test_the_published_waste_of_static_capacity():
    assert expected_waste(512, 0.05, 2) == pytest.approx(12.8)
    assert expected_waste(128, 1.0, 2) == 64

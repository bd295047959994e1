"""HyperMoE's adapters: one a set of chosen experts, zero heads leave the base."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from tests.workloads.routers.zoo import BATCH, TIME, D, N, moe, route, router, tokens

E = 5


def loud(**options):
    """A router whose adapters are of the size of its inputs."""
    built = router("hypermoe", E, adapter=8, **options)
    for head in (built.hypernetwork.down, built.hypernetwork.up):
        torch.nn.init.normal_(head.weight, std=0.5)
    return built.eval()


def test_zero_heads_leave_the_base_mixture():
    built, x = router("hypermoe", E).eval(), tokens()
    for head in ("down", "up", "down_bias", "up_bias"):
        for parameter in getattr(built.hypernetwork, head).parameters():
            parameter.data.zero_()
    y = torch.randn(N, D)
    assert torch.equal(built.refine(x, y, route(built, x)), y)


def test_adapters_are_those_of_the_formula_token_by_token():
    built, x = loud(k=2), tokens()
    routing = route(built, x)
    added = built.refine(x, torch.zeros(N, D), routing)
    for n, chosen in enumerate(routing.expert.view(N, 2)):
        unselected = [e for e in range(E) if e not in chosen.tolist()]
        selection = built.selection(built.expert_embeddings[unselected].sum(0))
        down, down_bias, up, up_bias = built.hypernetwork(torch.cat([selection, built.layer_embedding])[None])
        expected = F.relu(x[n] @ down[0] + down_bias[0]) @ up[0] + up_bias[0]
        # Adapters this loud sum terms of several hundred in float32
        torch.testing.assert_close(added[n], expected, rtol=1e-3, atol=1e-2)


def test_tokens_with_the_same_experts_have_the_same_adapter_in_either_order():
    built = loud(k=2)
    sets = torch.tensor([[0, 3], [3, 0], [0, 2]]).sort(-1).values
    for part in built.adapters(sets):
        # Not bit for bit: a matrix product may sum the rows of a batch in different orders
        torch.testing.assert_close(part[0], part[1])
        assert not torch.allclose(part[0], part[2])


def test_with_all_experts_chosen_the_adapter_is_one_for_all():
    built, x = loud(k=E), tokens(1).expand(N, D)
    added = built.refine(x, torch.zeros(N, D), route(built, x))
    torch.testing.assert_close(added, added[:1].expand_as(added))


def test_the_hypernetwork_is_shared_between_layers_and_the_embeddings_are_not():
    layers = [moe("hypermoe", seed=seed) for seed in range(2)]
    for index, layer in enumerate(layers):
        layer.place(layers, index)
    assert layers[0].router.hypernetwork is layers[1].router.hypernetwork
    assert layers[0].router.layer_embedding is not layers[1].router.layer_embedding


def test_the_adapter_starts_near_zero():
    layer = moe("hypermoe")
    x = tokens().view(BATCH, TIME, D)
    routing = route(layer.router, x.view(N, D))
    layer.router.refine(x.view(N, D), torch.zeros(N, D), routing)
    assert routing.stats["adapter_rms"] < 1e-3

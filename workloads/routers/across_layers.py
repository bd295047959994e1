"""Routers that reach across depth: a recurrence over layers, gates that look ahead, experts in common.

Shapes: N tokens, D width, q state width, E experts.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from workloads.routers.base import Gate
from workloads.routers.options import across_layers as configs
from workloads.routers.token_choice import TopK, choose, jittered
from workloads.slots import LayerContext, Router, Routing

CARRY = "rmoe"


class RMoE(TopK):
    """Layer-wise recurrent router (arXiv:2408.06793, eq. 4-8)."""

    options: configs.RMoE

    def __init__(self, d_model: int, num_experts: int, chosen: configs.RMoE) -> None:
        super().__init__(d_model, num_experts, chosen)
        cells = {"gru": nn.GRUCell, "rnn": nn.RNNCell}
        self.project = nn.Linear(d_model, chosen.width, bias=False)
        self.cell = cells[chosen.cell](chosen.width, chosen.width) if chosen.cell != "none" else None
        # The state is a tanh's, of size one; the gate's small start is for inputs of size one too.
        self.gate = Gate(chosen.width, num_experts)

    def logits(self, x: Tensor, context: LayerContext) -> Tensor:
        """Args: x [N, D]. Returns z [N, E]; leaves h [N, q] in the context."""
        r = self.project(jittered(x, self.options.jitter if self.training else 0.0))
        before = context.carry.get(CARRY) if self.options.pass_state else None
        if before is not None and before.shape != r.shape:
            before = None
        if before is not None and self.options.detach:
            before = before.detach()
        h = r if self.cell is None else self.cell(r, before)
        context.carry[CARRY] = h
        return self.gate(h)

    def plan(self, x: Tensor, context: LayerContext) -> Routing:
        """Args: x [N, D]. Returns N·k assignments."""
        routing = super().plan(x, context)
        routing.stats["router_state_rms"] = context.carry[CARRY].detach().square().mean().sqrt()
        return routing

    def place(self, routers: Sequence[Router], index: int) -> None:
        """Use the cell of the first recurrent router of the model."""
        first = next(each for each in routers if isinstance(each, RMoE))
        if first.options.width == self.options.width and first.options.cell == self.options.cell:
            self.cell = first.cell


class PreGated(TopK):
    """Gates that choose for a later layer (arXiv:2308.12066, sec. 4.1).

    own: this layer's gate, where no earlier layer has chosen for it. ahead: the gate for the layer `level` above.
    """

    options: configs.PreGated

    def __init__(self, d_model: int, num_experts: int, chosen: configs.PreGated) -> None:
        super().__init__(d_model, num_experts, chosen)
        self.own: Gate | None = self.gate
        del self.gate
        self.ahead = Gate(d_model, num_experts) if chosen.level else None

    def plan(self, x: Tensor, context: LayerContext) -> Routing:
        """Args: x [N, D]. Returns N·k assignments; leaves a later layer's logits in the context."""
        waiting: dict[int, Tensor] = context.carry.setdefault("pre_gated", {})
        depth = context.carry.get("pre_gated_depth", 0)
        context.carry["pre_gated_depth"] = depth + 1
        x = jittered(x, self.options.jitter if self.training else 0.0)
        z = waiting.pop(depth) if depth in waiting else None
        if self.ahead is not None:
            waiting[depth + self.options.level] = self.ahead(x)
        was_chosen = z is not None
        if z is None:
            if self.own is None:
                raise ValueError(
                    "pre_gated: no layer below has chosen for this one; run the layers in the model's order"
                )
            z = self.own(x)
        routing = choose(z, self.k, self.options, training=self.training)
        routing.stats["chosen_ahead"] = torch.tensor(float(was_chosen), device=x.device)
        return routing

    def place(self, routers: Sequence[Router], index: int) -> None:
        """Keep the gates that this depth needs: `own` in the first `level` layers, `ahead` unless in the last ones."""
        alike = [each for each in routers if isinstance(each, PreGated)]
        here = next(i for i, each in enumerate(alike) if each is self)
        level = self.options.level
        if any(each.options.level != level or each.num_experts != self.num_experts for each in alike):
            raise ValueError("pre_gated: all pre-gated layers of a model must have one level and one number of experts")
        if level and here >= level:
            self.own = None
        if here + level >= len(alike):
            self.ahead = None


class SharedExpertsAcrossLayers(TopK):
    """Top-k with a router a layer over experts that a group of layers shares (arXiv:2209.08326, sec. 3)."""

    options: configs.SharedExpertsAcrossLayers

    def __init__(self, d_model: int, num_experts: int, chosen: configs.SharedExpertsAcrossLayers) -> None:
        super().__init__(d_model, num_experts, chosen)
        self.expert_group = chosen.group_size

    def place(self, routers: Sequence[Router], index: int) -> None:
        """Use the gate of the group's first layer, where routers are shared too."""
        leader = routers[index // self.expert_group * self.expert_group if self.expert_group else 0]
        if not self.options.individual_router and isinstance(leader, SharedExpertsAcrossLayers):
            self.gate = leader.gate

"""The mixture of experts: route, dispatch, run the experts, combine. Shapes: B, T, D; N = B·T tokens; E experts."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from kernels import moe_combine, moe_dispatch
from workloads.feedforward.dense import is_gated
from workloads.feedforward.experts import Experts
from workloads.feedforward.health import routing_health
from workloads.feedforward.options.moe import MoE as Options
from workloads.feedforward.width import expert_hidden
from workloads.routers.options import ROUTERS
from workloads.slots import Feedforward, LayerContext, Router, Routing


class MoE(Feedforward):
    """y_t = Σ g[t, e] F_e(x_t) over the assignments that the router keeps (arXiv:1701.06538, eq. 1).

    Dropless: rows are copied once an assignment, grouped by expert, and brought back; the work follows the number of
    assignments, not of experts. Tokens without an assignment get 0.

    torch.compile breaks the graph at the router (see `GateRouter`) and at the dictionaries of `LayerContext`; results
    stay those of eager execution.
    """

    def __init__(self, d_model: int, options: Options) -> None:
        super().__init__()
        self.d_model, self.num_experts = d_model, options.num_experts
        self.router: Router = ROUTERS[options.router.name].load()(d_model, options.num_experts, options.router)
        hidden = options.expert_hidden or expert_hidden(
            d_model, self.router.active_experts, gated=is_gated(options.activation)
        )
        self.experts = Experts(d_model, hidden, options.num_experts, options.activation, options.init_scale)

    def forward(self, x: Tensor, context: LayerContext | None = None) -> Tensor:
        """Args: x [B, T, D]. Returns y [B, T, D]; the router's losses and the health columns go to `context`."""
        context = LayerContext() if context is None else context
        context.shape = (x.shape[0], x.shape[1])
        tokens = x.reshape(-1, self.d_model)
        routing, y, losses = self._fuse(tokens, context) if self.router.reads_outputs else self._route(tokens, context)
        y = self.router.refine(tokens, y, routing)
        stats = routing.stats
        if context.health:
            stats = routing_health(routing, len(tokens), self.num_experts, self.router.shared_experts)
            context.routings[context.layer] = routing
        context.add(routing.aux_losses | losses, stats)
        return self.experts.activation.finish(y, tokens).view(x.shape)

    def each(self, tokens: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """What every expert makes of every token. Args: tokens [N, D]. Returns ([N, E, D], the activation's losses)."""
        rows = tokens.expand(self.num_experts, -1, -1).flatten(0, 1)
        counts = torch.full((self.num_experts,), len(tokens), device=tokens.device)
        outputs, losses = self.experts(rows, counts)
        return outputs.unflatten(0, (self.num_experts, -1)).transpose(0, 1), losses

    def _fuse(self, tokens: Tensor, context: LayerContext) -> tuple[Routing, Tensor, dict[str, Tensor]]:
        outputs, losses = self.each(tokens)
        context.carry["expert_outputs"] = outputs
        routing = self.router(tokens, context)
        # Resting experts stay in the graph with gradient 0, as data-parallel training demands.
        outputs = outputs.detach() + 0 * outputs if self.router.experts_rest else outputs
        weight = routing.weight.view(len(tokens), self.num_experts, 1).to(outputs.dtype)
        return routing, (weight * outputs).sum(1), losses

    def _route(self, tokens: Tensor, context: LayerContext) -> tuple[Routing, Tensor, dict[str, Tensor]]:
        routing = self.router(tokens, context)
        return routing, *self.mix(tokens, routing)

    def mix(self, tokens: Tensor, routing: Routing) -> tuple[Tensor, dict[str, Tensor]]:
        """Carry a plan out. Args: tokens [N, D]. Returns (y [N, D], the activation's losses)."""
        rows, plan = moe_dispatch(tokens, routing.expert, self.num_experts, token=routing.token)
        rows, losses = self.experts(rows, plan.counts)
        return moe_combine(rows, plan, routing.weight), losses

    def set_progress(self, step: int, total_steps: int) -> None:
        """Let the router know the step, and then work on the experts' weights."""
        self.router.set_progress(step, total_steps)
        self.router.prepare_experts(self.experts)

    def after_step(self) -> None:
        """The router, a module of its own, hears of it itself."""

    def place(self, layers: Sequence[Feedforward], index: int) -> None:
        """Share experts and routers' parameters across the mixture layers of a model, as the router's method asks."""
        mixtures = [layer for layer in layers if isinstance(layer, MoE)]
        here = next(i for i, layer in enumerate(mixtures) if layer is self)
        group = self.router.expert_group
        self.experts = mixtures[here // group * group if group else 0].experts
        self.router.place([layer.router for layer in mixtures], here)

"""The slots of the shell: what a mixer, a feed-forward and a router promise. New methods subclass these.

Shapes: B batch, T time, D model width, N tokens (= B·T flattened), E experts, M kept assignments, k experts a token.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

State = Any
"""A mixer's carried state: tensors with leading dimension B, nested in tuples or dicts; None before the first token."""


@dataclass(slots=True)
class LayerContext:
    """What a layer may know beyond its input, and where it leaves losses and statistics. One forward pass long.

    tokens: input ids [B, T], where the task has ids (hash routing).
    shape: (B, T) of the flattened tokens that a router sees.
    carry: what one layer leaves for later layers of the same forward pass (RMoE's router state, pre-gates).
    losses: auxiliary losses, already weighted, by "layer/name"; the trainer adds them to the task's loss.
    stats: detached scalars by "layer/name", for the health columns.
    health: whether this pass is watched: layers then work out their health columns and leave their routings here.
    routings: by layer, the plan of a watched mixture.
    """

    layer: int = 0
    num_layers: int = 1
    tokens: Tensor | None = None
    shape: tuple[int, int] | None = None
    carry: dict[str, Any] = field(default_factory=dict)
    losses: dict[str, Tensor] = field(default_factory=dict)
    stats: dict[str, Tensor] = field(default_factory=dict)
    health: bool = True
    routings: dict[int, Routing] = field(default_factory=dict)

    def add(self, losses: dict[str, Tensor], stats: dict[str, Tensor]) -> None:
        """Record one layer's losses and statistics under its number."""
        self.losses |= {f"{self.layer}/{name}": value for name, value in losses.items()}
        self.stats |= {f"{self.layer}/{name}": value.detach() for name, value in stats.items()}


class Mixer(nn.Module):
    """Moves information along time, causally.

    Subclasses are built as `Mixer(d_model, options)` and implement `forward`; `step` has a default that calls
    `forward` on one position and is overridden where a cheaper form exists.

    Promises, held by one suite over the whole registry: y[:, :t] depends on x[:, :t] alone; `forward` on two
    halves with the state carried equals `forward` on the whole; `step` after `step` equals `forward`.
    """

    d_model: int

    def forward(self, x: Tensor, state: State = None) -> tuple[Tensor, State]:
        """Args: x [B, T, D]; state as returned by an earlier call, None for the start. Returns (y [B, T, D], state)."""
        raise TypeError(f"{type(self).__name__} has no forward")

    def step(self, x: Tensor, state: State = None) -> tuple[Tensor, State]:
        """One token: x [B, D] -> (y [B, D], state)."""
        y, state = self(x.unsqueeze(1), state)
        return y.squeeze(1), state

    def place(self, layer: int, stack: Sequence[Mixer]) -> None:
        """Called once, in depth order, when a model is put together: this is number `layer`, from 0, of `stack`.

        Initialisations that depend on depth hang here.
        """

    def state_bytes(self, batch_size: int, length: int) -> int:
        """Bytes of carried state after `length` tokens, measured on the state that the mixer really returns."""
        parameter = next(self.parameters())
        with torch.no_grad():
            x = torch.zeros(batch_size, length, self.d_model, dtype=parameter.dtype, device=parameter.device)
            return sum(t.numel() * t.element_size() for t in tensors_of(self(x)[1]))


@dataclass(slots=True)
class Routing:
    """A router's plan in coordinate form: one row a kept assignment, in any order.

    token: [M] int64, 0 <= token < N.
    expert: [M] int64, 0 <= expert < E.
    weight: [M] float32 (float64 for float64 tokens), the combine weight.
    aux_losses: already weighted scalars, by name.
    stats: scalars, by name (`drop_frac`, `entropy_norm`, ...); detached.
    probs: [N, E] the gate's probabilities where the method has them, for diagnostics.
    """

    token: Tensor
    expert: Tensor
    weight: Tensor
    aux_losses: dict[str, Tensor] = field(default_factory=dict)
    stats: dict[str, Tensor] = field(default_factory=dict)
    probs: Tensor | None = None


class Router(nn.Module):
    """Chooses experts. Built as `Router(d_model, num_experts, options)`.

    Gate arithmetic runs in float32 whatever the autocast dtype; ties go to the lowest index.
    """

    d_model: int
    num_experts: int
    active_experts: float = 1.0
    """Experts that a token is expected to use; the width of experts and counts of active parameters rest on it."""
    shared_experts: int = 0
    """The first so many experts serve every token and take no part in the choice."""
    reads_outputs: bool = False
    """The gate reads the experts' outputs, `context.carry["expert_outputs"]` [N, E, D]; every expert runs first."""
    experts_rest: bool = False
    """The experts take no gradient now."""
    expert_group: int = 1
    """Mixture layers in a row that use one set of experts; 0 for all of them."""

    def forward(self, x: Tensor, context: LayerContext | None = None) -> Routing:
        """Args: x [N, D]. Returns the plan for these tokens."""
        raise TypeError(f"{type(self).__name__} has no forward")

    def refine(self, x: Tensor, y: Tensor, routing: Routing) -> Tensor:
        """What the method does to the combined output. Args: x, y [N, D], the layer's input and output."""
        return y

    def prepare_experts(self, experts: nn.Module) -> None:
        """Called before each training step with the layer's experts, for methods that copy or mask their weights."""

    def place(self, routers: Sequence[Router], index: int) -> None:
        """Called once, in depth order, when a model is put together: this is `routers[index]` of its mixture layers.

        Methods that share parameters across depth tie them here and drop what their place leaves without use.
        """

    def set_progress(self, step: int, total_steps: int) -> None:
        """Called by the trainer before each training step; schedules and phases hang here."""

    def after_step(self) -> None:
        """Called by the trainer after each optimiser step; bias updates and local searches hang here."""


class Feedforward(nn.Module):
    """Works on each token alone. Built as `Feedforward(d_model, options)`."""

    d_model: int

    def forward(self, x: Tensor, context: LayerContext | None = None) -> Tensor:
        """Args: x [B, T, D]. Returns y [B, T, D]; losses and statistics go to `context`."""
        raise TypeError(f"{type(self).__name__} has no forward")

    def place(self, layers: Sequence[Feedforward], index: int) -> None:
        """Called once, in depth order, when a model is put together: this is `layers[index]`.

        Layers that share parameters across depth tie them here.
        """


def for_each_router(model: nn.Module, act: Callable[[Any], None]) -> None:
    """Call `act` on every module that takes part in the training schedule."""
    for module in model.modules():
        if hasattr(module, "set_progress") and hasattr(module, "after_step"):
            act(module)


def tensors_of(state: State) -> list[Tensor]:
    """The tensors of a nested state, in order."""
    if isinstance(state, Tensor):
        return [state]
    if isinstance(state, dict):
        return [t for value in state.values() for t in tensors_of(value)]
    if isinstance(state, (tuple, list)):
        return [t for value in state for t in tensors_of(value)]
    return []

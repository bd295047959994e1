"""The health columns: what routing, gates and memory do on one frozen batch, looked at whenever a trial reports.

Looking at a probe and not at training batches keeps the cost out of the steps, makes reports comparable with each
other and between trials, and gives `churn` a meaning. Shapes: B batch, T time, D width, N = B·T tokens, E experts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from workloads import seeding
from workloads.collapse import CollapseDetector
from workloads.feedforward.moe import MoE
from workloads.mixers.base import ObservedMixer
from workloads.shell import Block, SequenceModel, module_device
from workloads.slots import LayerContext, Routing, tensors_of
from workloads.tasks.base import Task

PROBE_TOKENS = 512
MOST_LAYERS = 12
"""Columns by layer are reported for at most so many layers, evenly spread over the depth."""

# Over the mixture layers of a model: the worst where one sick layer matters, the mean where the level does
OVER_LAYERS = {
    "util_min": min,
    "util_max": max,
    "cv": max,
    "dead_frac": max,
    "entropy_norm": None,
    "margin": None,
    "drop_frac": None,
    "churn": None,
    "overlap": None,
    "experts_per_token": None,
}


@dataclass(slots=True)
class LayerView:
    """One layer at one report.

    routing: the columns of `OVER_LAYERS`, for a mixture. loads: assignments by expert, shared experts left out.
    gate: mean, sat_low, sat_high, half_life, for a mixer with a forget gate. histogram: of that gate over [0, 1].
    """

    routing: dict[str, float] = field(default_factory=dict)
    loads: list[float] = field(default_factory=list)
    gate: dict[str, float] = field(default_factory=dict)
    histogram: list[float] = field(default_factory=list)
    state_norm: float | None = None


@dataclass(slots=True)
class View:
    """A model at one report. lag_norm: |∂ output at the last position / ∂ embedding so many positions before|, [T]."""

    step: int
    layers: list[LayerView]
    lag_norm: list[float]


class Probe:
    """Looks at a model on a frozen batch of the validation data. Evaluation mode; leaves the model as it was."""

    def __init__(self, task: Task, batch_size: int, sequence_length: int) -> None:
        batch = next(iter(task.validation(batch_size, sequence_length)))
        sequences = max(1, PROBE_TOKENS // batch.inputs.shape[1])
        self.inputs = batch.inputs[:sequences]
        self.detector = CollapseDetector()
        self.history: list[View] = []
        self._first_choice: dict[int, Tensor] = {}

    def report(self, model: SequenceModel, step: int) -> dict[str, float]:
        """The health columns of this moment.

        `moe/*`: over the mixture layers, see `workloads.feedforward.health`; `churn` is the share of tokens whose
        first expert, shared ones aside, changed since the last report, `overlap` the mean cosine between experts'
        input matrices.
        `gate/mean|sat_low|sat_high/LAYER` and `memory/half_life/LAYER` (steps): of the forget gate f.
        `memory/state_norm/LAYER`: root mean square of the state after the last position.
        `memory/grad_lag/LAG`: gradient reaching back LAG positions from the last, over that at the last itself.
        `health/expert_dead|entropy_low|gate_saturated`: number of layers in which the detector sees it.
        """
        view = self._look(model, step)
        self.history.append(view)
        columns = _routing_columns(view) | _layer_columns(view) | _lag_columns(view.lag_norm)
        if any(layer.routing or layer.gate for layer in view.layers):
            columns |= self.detector.update(view.layers)
        return columns

    def state(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {
            "first_choice": self._first_choice,
            "detector": self.detector.state(),
            "history": [_as_plain(view) for view in self.history],
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """From a checkpoint."""
        self._first_choice = {layer: choice.cpu() for layer, choice in state["first_choice"].items()}
        self.detector.load(state["detector"])
        self.history = views_of(state)

    def _look(self, model: SequenceModel, step: int) -> View:
        was_training = model.training
        gated = [module for module in model.modules() if isinstance(module, ObservedMixer)]
        for mixer in gated:
            mixer.record_gates, mixer.last_gate, mixer.last_histogram = True, None, None
        model.eval()
        try:
            context, embedded, output = _watched_pass(model, self.inputs)
            lags = _gradient_by_lag(output.logits, embedded)
            blocks: list[Block] = list(model.blocks)  # type: ignore[arg-type]
            layers = [self._layer(i, blocks[i], context, output.state[i]) for i in range(len(blocks))]
        finally:
            model.train(was_training)
            for mixer in gated:
                mixer.record_gates, mixer.last_gate, mixer.last_histogram = False, None, None
        return View(step, layers, lags)

    def _layer(self, index: int, block: Block, context: LayerContext, state: Any) -> LayerView:
        view = LayerView()
        routing = context.routings.get(index)
        if routing is not None and isinstance(block.feedforward, MoE):
            stats = {name: context.stats.get(f"{index}/{name}") for name in OVER_LAYERS}
            view.routing = {name: float(value) for name, value in stats.items() if value is not None}
            shared = block.feedforward.router.shared_experts
            view.routing |= self._churn(index, routing, shared) | {"overlap": _overlap(block.feedforward)}
            view.loads = _loads(routing, block.feedforward.num_experts)[shared:]
        gates = [m for m in block.mixer.modules() if isinstance(m, ObservedMixer) and m.last_gate is not None]
        if gates:
            view.gate = _gate_figures(gates)
            view.histogram = (
                torch.stack([m.last_histogram for m in gates if m.last_histogram is not None]).sum(0).tolist()
            )
        carried = [tensor for tensor in tensors_of(state) if tensor.is_floating_point()]
        if carried:
            squares = sum(float(tensor.detach().float().square().sum()) for tensor in carried)
            view.state_norm = math.sqrt(squares / max(1, sum(tensor.numel() for tensor in carried)))
        return view

    def _churn(self, index: int, routing: Routing, shared_experts: int) -> dict[str, float]:
        tokens = self.inputs.shape[0] * self.inputs.shape[1]
        now = first_choice(routing, tokens, shared_experts)
        before = self._first_choice.get(index)
        self._first_choice[index] = now
        return {} if before is None else {"churn": float((now != before).float().mean())}


def views_of(state: Mapping[str, Any]) -> list[View]:
    """The history in a probe's saved state."""
    return [_from_plain(view) for view in state["history"]]


def first_choice(routing: Routing, num_tokens: int, shared_experts: int = 0) -> Tensor:
    """The expert with the largest weight of each token, [N] int64 on the CPU; −1 where it keeps none.

    The first `shared_experts` get every token, and are nobody's choice.
    """
    chosen = routing.expert >= shared_experts
    token, expert, weight = (each[chosen].detach().cpu() for each in (routing.token, routing.expert, routing.weight))
    order = weight.argsort(stable=True)
    choice = torch.full((num_tokens,), -1, dtype=torch.int64)
    # Later writes win, and index_put_ with duplicates promises no order: so pick each token's last row first
    last = torch.full((num_tokens,), -1, dtype=torch.int64)
    last.scatter_reduce_(0, token[order], torch.arange(len(order)), "amax")
    kept = last >= 0
    choice[kept] = expert[order][last[kept]]
    return choice


def _watched_pass(model: SequenceModel, inputs: Tensor) -> tuple[LayerContext, Tensor, Any]:
    """A forward pass with gradients back to the embeddings alone, and what was seen."""
    kept: list[Tensor] = []

    def keep(_module: Any, _inputs: Any, output: Tensor) -> Tensor:
        kept.append(output.detach().requires_grad_())
        return kept[0]

    context = LayerContext(health=True)
    hook = model.embed.register_forward_hook(keep)
    try:
        with torch.enable_grad():
            output = model(inputs.to(module_device(model)), context=context)
    finally:
        hook.remove()
    return context, kept[0], output


def _gradient_by_lag(logits: Tensor, embedded: Tensor) -> list[float]:
    """Norm of the gradient of one fixed random combination of the last outputs, by positions back from the last."""
    last = logits[:, -1] if logits.ndim == 3 else logits
    direction = torch.randn(last.shape[-1], generator=seeding.torch_generator(0, "probe direction"))
    (gradient,) = torch.autograd.grad((last.float() @ direction.to(last.device)).sum(), embedded)
    by_position = gradient.float().square().sum(dim=(0, 2)).sqrt()
    return [float(value) for value in by_position.flip(0).cpu()]


def _loads(routing: Routing, num_experts: int) -> list[float]:
    counts = torch.bincount(routing.expert[routing.weight.detach() != 0], minlength=num_experts)
    return [float(count) for count in counts.cpu()]


@torch.no_grad()
def _overlap(layer: MoE) -> float:
    """Mean cosine between the input matrices of two experts: 0 for independent ones, 1 for copies."""
    weights = torch.nn.functional.normalize(layer.experts.up.flatten(1).float(), dim=1)
    experts = len(weights)
    if experts < 2:
        return 0.0
    return float((weights.sum(0).square().sum() - experts) / (experts * (experts - 1)))


def _gate_figures(gates: list[ObservedMixer]) -> dict[str, float]:
    def mean(name: str) -> float:
        return sum(float(mixer.last_gate[name]) for mixer in gates if mixer.last_gate) / len(gates)

    return {
        "mean": mean("gate_mean"),
        "sat_low": mean("gate_low"),
        "sat_high": mean("gate_high"),
        "half_life": mean("memory_steps") * math.log(2),
    }


def _routing_columns(view: View) -> dict[str, float]:
    columns = {}
    for name, worst in OVER_LAYERS.items():
        values = [layer.routing[name] for layer in view.layers if name in layer.routing]
        if values:
            columns[f"moe/{name}"] = worst(values) if worst else sum(values) / len(values)
    return columns


def _layer_columns(view: View) -> dict[str, float]:
    columns = {}
    depth = len(view.layers)
    shown = range(depth) if depth <= MOST_LAYERS else [i * (depth - 1) // (MOST_LAYERS - 1) for i in range(MOST_LAYERS)]
    for index in shown:
        layer = view.layers[index]
        for name, value in layer.gate.items():
            columns[f"memory/half_life/{index}" if name == "half_life" else f"gate/{name}/{index}"] = value
        if layer.state_norm is not None:
            columns[f"memory/state_norm/{index}"] = layer.state_norm
    return columns


def _lag_columns(lag_norm: list[float]) -> dict[str, float]:
    """At lags 1, 4, 16, ..., as far as the sequence goes, relative to lag 0."""
    columns = {}
    lag = 1
    while lag < len(lag_norm):
        columns[f"memory/grad_lag/{lag}"] = lag_norm[lag] / max(lag_norm[0], 1e-30)
        lag *= 4
    return columns


def _as_plain(view: View) -> dict[str, Any]:
    layers = [{name: getattr(layer, name) for name in LayerView.__slots__} for layer in view.layers]
    return {"step": view.step, "layers": layers, "lag_norm": view.lag_norm}


def _from_plain(plain: Mapping[str, Any]) -> View:
    return View(plain["step"], [LayerView(**layer) for layer in plain["layers"]], plain["lag_norm"])

"""What serving a trained mixture would need: measured on the task's validation data, layer by layer.

Loads and traces are recorded while the model is evaluated; buffering is run for real, its rivals are replayed on the
trace; pruned models are evaluated anew. Shapes: E experts, B batches.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from scipy.stats import spearmanr
from torch import Tensor, nn
from torch.nn import functional as F

from workloads.evaluate import evaluate, predictor
from workloads.feedforward.moe import MoE
from workloads.serving import placement
from workloads.serving.buffering import BufferedExperts, Counter, Policy, fetching_ahead, least_misses, replay
from workloads.serving.pruning import Mode, can_reroute, norm_change, pruned, router_norms, strongest
from workloads.serving.recording import LoadRecord, recording
from workloads.tasks.base import IGNORE
from workloads.trained import Trained

RARE = 0.1
"""The rarest classes that together make up this share of the targets are watched apart."""


@dataclass(frozen=True, slots=True)
class Buffered:
    """A buffer of `slots` experts, run over the validation data; rates are shares of the turns that hit.

    best: Belady's rule, which knows the future. bytes_a_pass: moved from host memory, on average. ahead: loads before
    their turn over turns, where layers below choose; these hit, so that the rate may be over the best of a buffer.
    """

    slots: int
    hit_rate: float
    lru: float
    best: float
    bytes_a_pass: float
    ahead: float


@dataclass(frozen=True, slots=True)
class Placed:
    """The largest share of one pass's work that one of `devices` gets under each placement; 1/devices is even.

    The placements know the first half of the passes, the shares are of the second.
    """

    devices: int
    in_order: float
    greedy: float
    anticorrelated: float


@dataclass(frozen=True, slots=True)
class Layer:
    """One mixture layer.

    loads: assignments of each expert over their mean, [E].
    waste: rows over useful rows if every expert's block were padded to the fullest one of its batch.
    correlation: Spearman's, of the experts' scores for pruning with their loads; None where the gate has no vectors or
        the loads do not differ.
    """

    name: str
    router: str
    assignments: int
    loads: tuple[float, ...]
    waste: float
    buffered: tuple[Buffered, ...]
    placed: tuple[Placed, ...]
    correlation: float | None


@dataclass(frozen=True, slots=True)
class Pruned:
    """The model with `keep` experts a layer. by: what ranked the experts. rare: nats on the rarest classes."""

    by: str
    mode: Mode
    keep: int
    metric: float
    rare: float | None


@dataclass(frozen=True, slots=True)
class Report:
    """metric, value: of the whole model on the validation data; rare: as in `Pruned`; batches: passes recorded."""

    metric: str
    value: float
    rare: float | None
    batches: int
    layers: tuple[Layer, ...]
    prunings: tuple[Pruned, ...]


def report(
    subject: Trained,
    *,
    before: Trained | None = None,
    slots: Sequence[int] = (),
    devices: Sequence[int] = (2,),
    keep: int | None = None,
) -> Report:
    """Measure a trained mixture.

    Args:
        before: the model before its fine-tuning, for the change of the router norms; the norms alone without it.
        slots: sizes of the buffer; a quarter and a half of the experts when left out.
        devices: numbers of devices; those that do not divide a layer's experts are passed over.
        keep: experts that pruning leaves a layer; three quarters when left out.

    Raises:
        ValueError: no mixture in the model, or not the same ones in `before`.
    """
    layers = dict(_mixtures(subject.model))
    if not layers:
        raise ValueError(f"{subject.path} holds no mixture of experts; train one with `feedforward: {{name: moe}}`.")
    scores = {name: _score(name, layer, before) for name, layer in layers.items()}
    by_vectors = "norm" if before is None else "norm change"
    with recording(subject.model) as record:
        metrics = _evaluate(subject)
    buffered = {size: _buffered(subject, size) for size in slots or _default_slots(layers)}
    return Report(
        metric=subject.task.metric,
        value=metrics[subject.task.metric],
        rare=_rare_loss(subject),
        batches=record.loads(next(iter(layers))).shape[1],
        layers=tuple(_layer(name, layer, record, scores[name], buffered, devices) for name, layer in layers.items()),
        prunings=tuple(_prunings(subject, layers, record, scores, by_vectors, keep)),
    )


def _mixtures(model: nn.Module) -> Iterator[tuple[str, MoE]]:
    return ((name, layer) for name, layer in model.named_modules() if isinstance(layer, MoE))


def _default_slots(layers: Mapping[str, MoE]) -> list[int]:
    num_experts = max(layer.num_experts for layer in layers.values())
    return sorted({max(1, num_experts // 4), max(1, num_experts // 2)})


def _evaluate(subject: Trained) -> dict[str, float]:
    return evaluate(subject.model, subject.task, subject.trial.training)


def _score(name: str, layer: MoE, before: Trained | None) -> Tensor | None:
    earlier = dict(_mixtures(before.model)) if before is not None else {}
    if before is not None and (name not in earlier or earlier[name].num_experts != layer.num_experts):
        raise ValueError(
            f"{before.path} has no mixture of {layer.num_experts} experts at {name}; give one of the same model."
        )
    try:
        return norm_change(earlier[name].router, layer.router) if earlier else router_norms(layer.router)
    except ValueError:  # a router without one vector an expert
        return None


def _buffered(subject: Trained, slots: int) -> dict[str, Counter]:
    """What each layer's buffer counted over an evaluation."""
    model = copy.deepcopy(subject.model)
    buffers = {name: BufferedExperts(layer.experts, slots) for name, layer in _mixtures(model)}
    for name, layer in list(_mixtures(model)):
        layer.experts = buffers[name]  # type: ignore[assignment]
    with fetching_ahead([layer for _, layer in _mixtures(model)]):
        _evaluate(replace(subject, model=model))
    return {name: buffer.counter for name, buffer in buffers.items()}


def _layer(
    name: str,
    layer: MoE,
    record: LoadRecord,
    score: Tensor | None,
    buffered: Mapping[int, Mapping[str, Counter]],
    devices: Sequence[int],
) -> Layer:
    loads, trace = record.loads(name), record.trace(name)
    turns = max(1, sum(map(len, trace)))

    def rate(policy: Policy, slots: int) -> float:
        return sum(use.hit for use in replay(trace, slots, policy)) / turns

    total = loads.sum(1)
    useful = loads.sum(0)
    return Layer(
        name=name,
        router=type(layer.router).__name__,
        assignments=int(total.sum()),
        loads=tuple((total / total.mean().clamp_min(1e-9)).tolist()),
        waste=float((layer.num_experts * loads.max(0).values / useful.clamp_min(1)).mean()),
        buffered=tuple(
            Buffered(
                slots,
                counters[name].hit_rate,
                rate("lru", slots),
                1 - least_misses(trace, slots) / turns,
                counters[name].bytes_moved / loads.shape[1],
                counters[name].fetched_ahead / turns,
            )
            for slots, counters in buffered.items()
        ),
        placed=tuple(_placed(loads, each) for each in devices if layer.num_experts % each == 0),
        correlation=_rank_correlation(score, total),
    )


def _rank_correlation(score: Tensor | None, loads: Tensor) -> float | None:
    """Spearman's; None where there are no scores, or all loads are equal."""
    if score is None or (loads == loads[0]).all():
        return None
    return float(spearmanr(score, loads).statistic)


def _placed(loads: Tensor, devices: int) -> Placed:
    """Planned from the first half of the passes, measured on the second."""
    half = (loads.shape[1] + 1) // 2
    past, future = loads[:, :half], loads[:, half:] if loads.shape[1] > 1 else loads
    plans = (
        placement.in_order(len(loads), devices),
        placement.place(past, devices, "greedy"),
        placement.place(past, devices, "anticorrelated"),
    )
    return Placed(devices, *(placement.largest_share(future, plan, devices) for plan in plans))


def _prunings(
    subject: Trained,
    layers: Mapping[str, MoE],
    record: LoadRecord,
    scores: Mapping[str, Tensor | None],
    by_vectors: str,
    keep: int | None,
) -> Iterator[Pruned]:
    rankings: dict[str, dict[str, Tensor]] = {"load": {name: record.loads(name).sum(1) for name in layers}}
    known = {name: score for name, score in scores.items() if score is not None}
    if len(known) == len(layers):
        rankings = {by_vectors: known} | rankings
    modes: list[Mode] = ["skip"] if not any(layer.router.reads_outputs for layer in layers.values()) else []
    modes += ["reroute"] if all(can_reroute(layer.router) for layer in layers.values()) else []
    fewest = min(layer.num_experts for layer in layers.values())
    count = max(1, 3 * fewest // 4) if keep is None else keep
    for by, ranking in rankings.items():
        for mode in modes:
            model = copy.deepcopy(subject.model)
            for name, layer in list(_mixtures(model)):
                parent, _, last = name.rpartition(".")
                setattr(model.get_submodule(parent), last, pruned(layer, strongest(ranking[name], count), mode))
            smaller = replace(subject, model=model)
            yield Pruned(by, mode, count, _evaluate(smaller)[subject.task.metric], _rare_loss(smaller))


@torch.no_grad()
def _rare_loss(subject: Trained) -> float | None:
    """Mean loss in nats on the rarest classes, which the mean over all targets hides; None without classes."""
    training, predict = subject.trial.training, predictor(subject.model, subject.trial.training.precision)
    losses, classes = [], []
    for batch in subject.task.validation(training.batch_size, training.sequence_length):
        output = predict(batch.inputs)
        if batch.targets.is_floating_point() or output.shape[:-1] != batch.targets.shape:
            return None
        scored = batch.targets != IGNORE
        losses.append(F.cross_entropy(output[scored], batch.targets[scored], reduction="none"))
        classes.append(batch.targets[scored])
    loss, target = torch.cat(losses), torch.cat(classes)
    counts = torch.bincount(target)
    order = counts.argsort(stable=True)
    is_rare = torch.zeros_like(counts, dtype=torch.bool)
    is_rare[order[counts[order].cumsum(0) <= RARE * len(target)]] = True
    chosen = is_rare[target]
    return float(loss[chosen].mean()) if chosen.any() else None

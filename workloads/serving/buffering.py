"""Keeps the hot experts on the device and the rest in host memory, with a measured hit rate.

Experts of a batch run in the order of their numbers, so the one loaded last is needed farthest in the future: evict
experts that this batch does not use, then last in first out (arXiv:2303.06182, sec. 5.2). Where a layer below has
chosen already (`pre_gated`), `fetching_ahead` loads experts while that layer computes (arXiv:2308.12066, sec. 4.2).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn

from kernels import moe_route
from workloads.feedforward.experts import Experts
from workloads.feedforward.moe import MoE
from workloads.routers.across_layers import PreGated
from workloads.slots import LayerContext, Routing

Policy = Literal["lifo", "lru"]


class Use(NamedTuple):
    """One expert's turn. hit: it was on the device already."""

    expert: int
    hit: bool


@dataclass(slots=True)
class Counter:
    """What the buffer did. fetched_ahead: loads before their turn; bytes_moved: from host memory to the device."""

    hits: int = 0
    misses: int = 0
    fetched_ahead: int = 0
    bytes_moved: int = 0

    @property
    def hit_rate(self) -> float:
        """Share of the turns that found their expert on the device; 0 before the first."""
        return self.hits / max(1, self.hits + self.misses)


class Residents:
    """Which experts are on the device, and who leaves when another must come. Pure bookkeeping.

    Raises:
        ValueError: an unknown policy, or no slot.
    """

    def __init__(self, slots: int, policy: Policy = "lifo") -> None:
        if policy not in get_args(Policy):
            raise ValueError(f"policy must be one of {', '.join(get_args(Policy))}; got {policy!r}")
        if slots < 1:
            raise ValueError(f"slots must be at least 1, got {slots}")
        self.slots, self.policy = slots, policy
        self.loaded: list[int] = []
        self.used: dict[int, int] = {}
        self._turn = 0

    def use(self, expert: int, batch: Sequence[int]) -> tuple[Use, int | None]:
        """One turn. Args: batch, the experts that this batch uses. Returns the turn, and who was evicted for it."""
        self._turn += 1
        hit = expert in self.used
        evicted = None if hit else self.bring(expert, batch)
        self.used[expert] = self._turn
        return Use(expert, hit), evicted

    def bring(self, expert: int, batch: Sequence[int]) -> int | None:
        """Load an expert that is not there, without using it. Args: batch, as in `use`. Returns who was evicted."""
        evicted = None
        if len(self.loaded) == self.slots:
            evicted = self._victim(set(batch))
            self.loaded.remove(evicted)
            del self.used[evicted]
        self.loaded.append(expert)
        self.used[expert] = self._turn
        return evicted

    def missing(self, batch: Sequence[int]) -> list[int]:
        """The experts of a batch to load ahead, in order: no more than there is room for beside those that stay."""
        room = self.slots - sum(expert in self.used for expert in batch)
        return [expert for expert in batch if expert not in self.used][: max(0, room)]

    def _victim(self, active: set[int]) -> int:
        if self.policy == "lru":
            return min(self.loaded, key=self.used.__getitem__)
        idle = [expert for expert in self.loaded if expert not in active]
        return (idle or self.loaded)[-1]


def replay(trace: Sequence[Sequence[int]], slots: int, policy: Policy = "lifo") -> list[Use]:
    """The turns of a recorded trace under a policy. Args: trace, the experts of each batch in running order."""
    residents = Residents(slots, policy)
    return [residents.use(expert, batch)[0] for batch in trace for expert in batch]


def least_misses(trace: Sequence[Sequence[int]], slots: int) -> int:
    """Misses of Belady's rule, which knows the future and evicts what is needed last: no policy has fewer."""
    turns = [expert for batch in trace for expert in batch]
    resident: set[int] = set()
    misses = 0
    for now, expert in enumerate(turns):
        if expert in resident:
            continue
        misses += 1
        if len(resident) == slots:
            resident.remove(max(resident, key=lambda each: _next_use(turns, now, each)))
        resident.add(expert)
    return misses


def _next_use(turns: Sequence[int], now: int, expert: int) -> int:
    return next((at for at in range(now + 1, len(turns)) if turns[at] == expert), len(turns))


class BufferedExperts(nn.Module):
    """Stands in for a mixture's `experts` at inference: `layer.experts = BufferedExperts(layer.experts, slots=4)`.

    All weights stay in host memory (pinned where the device is CUDA); `slots` of them have a copy on the device.
    `counter` holds hits, misses and bytes moved.

    Raises:
        ValueError: an unknown policy, or no slot.
    """

    def __init__(
        self, experts: Experts, slots: int, *, device: torch.device | str = "cpu", policy: Policy = "lifo"
    ) -> None:
        super().__init__()
        self.num_experts, self.activation = experts.num_experts, experts.activation.to(device)
        self.device = torch.device(device)
        pin = self.device.type == "cuda"
        weights = {name: getattr(experts, name) for name in ("gate", "up", "down")}
        host = {name: weight.detach().cpu() for name, weight in weights.items() if weight is not None}
        self._host = {name: weight.pin_memory() if pin else weight for name, weight in host.items()}
        self._on_device: dict[int, dict[str, Tensor]] = {}
        self._copies = torch.cuda.Stream(self.device) if pin else None
        self._ahead: set[int] = set()
        self.residents = Residents(slots, policy)
        self.counter = Counter()

    def fetch_ahead(self, batch: Sequence[int]) -> None:
        """Load experts before their turn, on CUDA beside what runs now. Args: batch, the experts of the next pass."""
        for expert in self.residents.missing(batch):
            self._evict(self.residents.bring(expert, batch))
            with torch.cuda.stream(self._copies) if self._copies is not None else nullcontext():
                self._load(expert)
            self._ahead.add(expert)
            self.counter.fetched_ahead += 1

    @torch.no_grad()
    def forward(self, rows: Tensor, counts: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """As `Experts.forward`, expert after expert. Args: rows [M, D] grouped by expert; counts [E]."""
        sizes = counts.tolist()
        active = [expert for expert, size in enumerate(sizes) if size]
        parts = rows.split(sizes)
        outputs = [self._run(parts[expert], self._fetch(expert, active)) for expert in active]
        return torch.cat(outputs) if outputs else rows, {}

    def _fetch(self, expert: int, active: list[int]) -> dict[str, Tensor]:
        turn, evicted = self.residents.use(expert, active)
        self._evict(evicted)
        if turn.hit:
            self.counter.hits += 1
        else:
            self.counter.misses += 1
            self._load(expert)
        weights = self._on_device[expert]
        if expert in self._ahead and self._copies is not None:
            computing = torch.cuda.current_stream(self.device)
            computing.wait_stream(self._copies)
            for weight in weights.values():
                weight.record_stream(computing)
        self._ahead.discard(expert)
        return weights

    def _evict(self, expert: int | None) -> None:
        if expert is not None:
            del self._on_device[expert]
            self._ahead.discard(expert)

    def _load(self, expert: int) -> None:
        weights = {name: weight[expert] for name, weight in self._host.items()}
        self.counter.bytes_moved += sum(w.numel() * w.element_size() for w in weights.values())
        # copy: on a CPU "device" .to alone would share the host's memory, and nothing would be buffered
        self._on_device[expert] = {
            name: weight.to(self.device, non_blocking=True, copy=True) for name, weight in weights.items()
        }

    def _run(self, rows: Tensor, weights: dict[str, Tensor]) -> Tensor:
        up = rows @ weights["up"]
        if "gate" not in weights:
            hidden: Tensor = self.activation(up, rows)
        else:
            hidden = self.activation(rows @ weights["gate"], rows) * up
        return hidden @ weights["down"]


@contextmanager
def fetching_ahead(layers: Sequence[MoE]) -> Iterator[None]:
    """Inside, a layer's buffer loads what the gate of a layer below has chosen, while that layer's experts run.

    Args: layers, the mixtures of a model in the order of depth; those that are not pre-gated and buffered are left.
    """
    pre_gated = [layer for layer in layers if isinstance(layer.router, PreGated)]

    def fetch(router: PreGated, arguments: tuple[Any, ...], _routing: Routing) -> None:
        context: LayerContext = arguments[1]
        depth = context.carry["pre_gated_depth"] - 1 + router.options.level
        if (z := context.carry["pre_gated"].get(depth)) is None:
            return
        buffer = pre_gated[depth].experts
        if isinstance(buffer, BufferedExperts):
            buffer.fetch_ahead(moe_route(z.detach(), router.k)[0].unique().tolist())

    handles = [layer.router.register_forward_hook(fetch) for layer in pre_gated]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()

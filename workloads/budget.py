"""What a model costs: parameters, active parameters, FLOPs a token, bytes of recurrent state.

FLOPs are those of matrix products, convolutions, attention, Fourier transforms and recurrences, a multiply and an add
counting as two; pointwise work is left out. Recurrences count in their step-by-step form (`kernels.cost`), so that a
budget is the same on every machine.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry, sdpa_flop_count

from kernels import cost
from workloads import seeding
from workloads.build import task_of
from workloads.config import TrialConfig
from workloads.feedforward.moe import MoE
from workloads.shell import SequenceModel, count_parameters, module_device
from workloads.tasks.base import Task

SAMPLE_TOKENS = 256
"""Tokens over which FLOPs are averaged at least: some routers' work depends on what they see."""


@dataclass(frozen=True, slots=True)
class Budget:
    """The cost of one trial's model at its training length.

    params: trained numbers, shared ones once.
    active_params: those that one token meets: of a mixture's experts, the expected number that a token is sent to.
    train_flops_per_token: forward, and backward to every trained parameter. A product forward is two backward, unless
        one of its sides needs no gradient: the input of a real-valued task, fixed features, steps to a fixed point.
    inference_flops_per_token: the forward pass, a mean over the positions of a sequence.
    state_bytes: what one sequence carries from token to token after the training length, over all layers.
    """

    params: int
    active_params: int
    train_flops_per_token: float
    inference_flops_per_token: float
    state_bytes: int

    def columns(self) -> dict[str, float | int]:
        """For reports: plain numbers by name."""
        return asdict(self)


def budget(config: TrialConfig | Mapping[str, Any]) -> Budget:
    """The budget of a trial, from a model built and run once on this machine's CPU.

    Raises:
        ConfigError: the configuration is wrong.
    """
    trial = TrialConfig.parse(config)
    task = task_of(trial)
    seeding.seed_everything(trial.seed, "init")
    return measure(SequenceModel(trial.model, task.signature(trial.training.sequence_length)), task, trial)


def measure(model: SequenceModel, task: Task, trial: TrialConfig) -> Budget:
    """The budget of a model that is there already, on the first batch of its task."""
    length = model.signature.sequence_length
    sequences = math.ceil(SAMPLE_TOKENS / length)
    inputs = task.batch(1, trial.seed, sequences, length).inputs.to(module_device(model))
    tokens = inputs.shape[0] * inputs.shape[1]
    return Budget(
        params=count_parameters(model),
        active_params=active_parameters(model),
        train_flops_per_token=training_flops(model, inputs) / tokens,
        inference_flops_per_token=forward_flops(model, inputs) / tokens,
        state_bytes=sum(block.mixer.state_bytes(1, length) for block in model.blocks),  # type: ignore[operator, union-attr]
    )


def forward_flops(module: nn.Module, *inputs: Any) -> int:
    """FLOPs of `module(*inputs)`, in evaluation mode; the module's mode is put back."""
    with _evaluation(module), torch.no_grad(), cost.counting() as ledger, _Meter(ledger) as meter:
        module(*inputs)
    return meter.flops + sum(ledger.flops.values())


def training_flops(model: nn.Module, inputs: Tensor) -> int:
    """FLOPs of a forward and backward pass, in evaluation mode, which moves no state; leaves no gradients behind.

    Args:
        model: a `SequenceModel`. inputs: as it takes them.
    """
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    with _evaluation(model), torch.enable_grad(), cost.counting() as ledger, _Meter(ledger) as meter:
        output = model(inputs)
        total = output.logits.sum() + sum(output.losses.values())
        torch.autograd.grad(total, parameters, allow_unused=True)
    return meter.flops + sum(ledger.flops.values()) + ledger.backward


def active_parameters(model: nn.Module) -> int:
    """Parameters that a token meets: all but the experts that it is expected not to be sent to."""
    idle: dict[int, float] = {}
    for layer in model.modules():
        if isinstance(layer, MoE):
            size = count_parameters(layer.experts)
            used = min(1.0, layer.router.active_experts / layer.num_experts)
            # Layers that share their experts may each use others of them
            shared = idle.get(id(layer.experts), size)
            idle[id(layer.experts)] = max(0.0, shared - used * size)
    return count_parameters(model) - round(sum(idle.values()))


@contextmanager
def _evaluation(module: nn.Module) -> Iterator[None]:
    was_training = module.training
    module.eval()
    try:
        yield
    finally:
        module.train(was_training)


class _Meter(TorchDispatchMode):
    """Adds up the FLOPs of torch's operators outside of `kernels`' own operations."""

    def __init__(self, ledger: cost.Ledger) -> None:
        super().__init__()
        self.ledger, self.flops = ledger, 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        formula = FORMULAS.get(func.overloadpacket)
        if formula is not None and not self.ledger.inside:
            self.flops += formula(*args, **(kwargs or {}), out_val=result)
        return result


def _attention(query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> int:
    return sdpa_flop_count(query.shape, key.shape, value.shape)


def _attention_backward(_: Tensor, query: Tensor, key: Tensor, value: Tensor, *__: Any, **___: Any) -> int:
    """Two products for each of the two forward. What a form computes again to save memory is not counted."""
    return 2 * sdpa_flop_count(query.shape, key.shape, value.shape)


def _transform(x: Tensor, dims: list[int], *args: Any, out_val: Tensor, **_: Any) -> int:
    """5 n log₂ n for a complex transform of n points, half for one that is real on one side."""
    points = max(x.numel(), out_val.numel())
    length = math.prod(max(x.shape[dim], out_val.shape[dim]) for dim in dims)
    share = 5.0 if x.is_complex() and out_val.is_complex() else 2.5
    return round(share * points * math.log2(max(2, length)))


# torch.utils.flop_counter knows neither its own CPU attention nor Fourier transforms
_MORE: dict[str, Callable[..., int]] = {
    "_scaled_dot_product_flash_attention_for_cpu": _attention,
    "_scaled_dot_product_attention_math": _attention,
    "_scaled_dot_product_flash_attention_for_cpu_backward": _attention_backward,
    "_scaled_dot_product_flash_attention_backward": _attention_backward,
    "_scaled_dot_product_efficient_attention_backward": _attention_backward,
    "_scaled_dot_product_cudnn_attention_backward": _attention_backward,
    "_fft_r2c": _transform,
    "_fft_c2r": _transform,
    "_fft_c2c": _transform,
}
FORMULAS: dict[Any, Callable[..., int]] = {
    **flop_registry,
    **{getattr(torch.ops.aten, name): formula for name, formula in _MORE.items()},
}

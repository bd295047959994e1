"""Dispatch rows to experts and combine them back: a stable permutation by counting, and its weighted inverse."""

from types import ModuleType

import torch
from torch import Tensor

from kernels.backend import Backend, pick
from kernels.moe_dispatch import cpu, reference
from kernels.moe_dispatch.plan import DispatchPlan

__all__ = ["DispatchPlan", "moe_combine", "moe_dispatch"]


def moe_dispatch(
    x: Tensor, index: Tensor, num_experts: int, *, token: Tensor | None = None, backend: Backend = "auto"
) -> tuple[Tensor, DispatchPlan]:
    """Copy each token once for every expert that serves it, grouped by expert.

        rows, plan = moe_dispatch(x, index, E)                # every token has k experts: index [N, k]
        rows, plan = moe_dispatch(x, expert, E, token=token)  # any assignments: expert [M], token [M]

    The second form takes what the first cannot say: dropped tokens, expert choice, a varying number of experts a
    token, the same pair twice. In both, rows[r] = x[plan.token[r]], the rows of expert e stand before those of
    e + 1, and rows of one expert keep the order of the assignments. Differentiable in ``x``.

    Args:
        x: [N, D] any dtype and strides.
        index: integer, [N, k], or [M] with ``token``: the experts, each in [0, num_experts). The range is checked
            on the CPU; on an accelerator a check would make the host wait.
        num_experts: E.
        token: integer [M], the token of each assignment, each in [0, N), in any order.
        backend: "auto" takes Triton on CUDA, the PyTorch form elsewhere.

    Returns:
        rows [M, D] with M = N * k for the first form, and the plan, whose ``counts`` [E] serve ``grouped_mm`` and
        which ``moe_combine`` inverts. One plan may combine any number of row tensors.

    Raises:
        ValueError: wrong shapes, dtypes or devices, an expert or token out of range (on the CPU), or a backend
            that cannot run here.

    Cost: moves 2·M·D elements and about 60·M index bytes; no arithmetic on x. The number of experts costs nothing
    but their counters.
    Source: dropless token permutation as in MegaBlocks (arXiv 2211.15841, sec. 5), with counting in place of a sort.
    """
    token_flat, expert, per_token = _assignments(x, index, num_experts, token)
    form = _form(backend, x)
    plan = form.plan(token_flat, expert, x.shape[0], num_experts, per_token)
    return form.dispatch(x, plan), plan


def moe_combine(rows: Tensor, plan: DispatchPlan, weight: Tensor | None = None, *, backend: Backend = "auto") -> Tensor:
    """Bring rows back to their tokens and add them up: y[token] += weight * row.

        y[n] = sum over the rows r of token n of weight[plan.assignment[r]] * rows[r]

    A token without rows gets zeros. Sums run in float32 (float64 for float64 rows), in a fixed order: the same input
    gives the same bits. Differentiable in ``rows`` and ``weight``.

    Args:
        rows: [M, D], grouped as ``moe_dispatch`` left them; D may differ from the width that was dispatched.
        plan: from ``moe_dispatch``.
        weight: [N, k] or [M], one a assignment in the order of the ``index`` that was dispatched; ones if None.
        backend: "auto" takes Triton on CUDA, the PyTorch form elsewhere.

    Returns:
        y [N, D] in the dtype of ``rows``.

    Raises:
        ValueError: wrong shapes or dtypes, or a backend that cannot run here.

    Cost: reads M·D and writes N·D elements, 2·M·D FLOPs.
    Source: MegaBlocks (arXiv 2211.15841, sec. 5).
    """
    num_rows = plan.assignment.shape[0]
    if rows.ndim != 2 or rows.shape[0] != num_rows or not rows.is_floating_point():
        raise ValueError(
            f"moe_combine: rows must be floating [{num_rows}, D], one for every assignment of the plan; "
            f"got {rows.dtype} {list(rows.shape)}"
        )
    if weight is not None and (weight.numel() != num_rows or not weight.is_floating_point()):
        raise ValueError(
            f"moe_combine: weight must be floating with {num_rows} elements, one for every assignment of the plan; "
            f"got {weight.dtype} {list(weight.shape)}"
        )
    return _form(backend, rows).combine(rows, plan, None if weight is None else weight.flatten())


def _form(backend: Backend, rows: Tensor) -> ModuleType:
    # Triton's form sums in float32.
    match pick("cpu" if backend == "auto" and rows.dtype == torch.float64 else backend, rows):
        case "reference":
            return reference
        case "triton":
            # Triton is absent from CPU-only installs
            from kernels.moe_dispatch import triton_impl

            return triton_impl
    return cpu


def _assignments(x: Tensor, index: Tensor, num_experts: int, token: Tensor | None) -> tuple[Tensor, Tensor, int | None]:
    """Both forms of the input as (token [M], expert [M], assignments a token if they are regular)."""
    if x.ndim != 2:
        raise ValueError(f"moe_dispatch: x must be [N, D], got {list(x.shape)}; flatten it with .flatten(0, -2)")
    for name, tensor in (("index", index), ("token", token)):
        if tensor is not None and (tensor.is_floating_point() or tensor.dtype == torch.bool):
            raise ValueError(f"moe_dispatch: {name} must hold integers, got {tensor.dtype}")
        if tensor is not None and tensor.device != x.device:
            raise ValueError(f"moe_dispatch: {name} is on {tensor.device} and x on {x.device}; put both on one device")
    if token is None:
        if index.ndim != 2 or index.shape[0] != x.shape[0]:
            raise ValueError(
                f"moe_dispatch: index must be [{x.shape[0]}, k], one row for every token of x, got "
                f"{list(index.shape)}; for other assignments give index [M] together with token [M]"
            )
        per_token = index.shape[1]
        token = torch.arange(x.shape[0], device=x.device).repeat_interleave(per_token)
    else:
        if index.ndim != 1 or index.shape != token.shape:
            raise ValueError(
                f"moe_dispatch: with token, index and token must both be [M], got {list(index.shape)} and "
                f"{list(token.shape)}"
            )
        per_token = None
    expert = index.flatten().long()
    token = token.long()
    if x.device.type == "cpu" and not torch.compiler.is_compiling() and len(expert):
        _check_range("index", expert, num_experts, "num_experts")
        _check_range("token", token, x.shape[0], "the rows of x")
    return token, expert, per_token


def _check_range(name: str, value: Tensor, limit: int, what: str) -> None:
    low, high = (int(v) for v in value.aminmax())
    if low < 0 or high >= limit:
        bad = low if low < 0 else high
        raise ValueError(f"moe_dispatch: {name} must lie in [0, {limit}) ({what}), got {bad}")

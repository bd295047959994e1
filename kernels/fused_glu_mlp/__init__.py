"""Gated MLP of every expert over its own rows."""

import torch
from torch import Tensor

from kernels.backend import Backend, pick
from kernels.fused_glu_mlp import cpu, reference
from kernels.grouped_mm.groups import autocast, check_counts

ACTIVATIONS = tuple(reference.ACTIVATIONS)
"""The names of the gate's functions."""


def fused_glu_mlp(
    x: Tensor,
    w_gate: Tensor,
    w_up: Tensor,
    w_down: Tensor,
    counts: Tensor,
    activation: str = "silu",
    *,
    backend: Backend = "auto",
) -> Tensor:
    """Run each expert's gated MLP over its rows: SwiGLU, GEGLU, ReGLU, bilinear or GLU.

        y[r] = (act(x[r] @ w_gate[e]) * (x[r] @ w_up[e])) @ w_down[e]   for the counts[e] rows r of expert e

    The Triton form computes gate, up and their product in one kernel, and keeps for the backward pass only x and the
    two pre-activations. Differentiable once, in ``x`` and the three weights. Under autocast all are cast to its dtype.

    Args:
        x: [M, I] grouped by expert; float32, bfloat16, float16, or float64 (not in Triton); any strides.
        w_gate: [E, I, H], the dtype of ``x``; any strides.
        w_up: [E, I, H].
        w_down: [E, H, O].
        counts: [E] integer, the rows of each expert; their sum must be M (checked on the CPU only).
        activation: "silu", "gelu" (exact, by erf), "relu", "identity" or "sigmoid".
        backend: "auto" takes Triton on CUDA, the PyTorch form elsewhere.

    Returns:
        y [M, O] in the dtype of ``x``; products are summed in float32 at least.

    Raises:
        ValueError: wrong shapes, dtypes, devices or counts, an unknown activation, or a backend that cannot run here.

    Cost: 2·M·H·(2·I + O) FLOPs forward, twice that backward. Forward moves about M·(I + 4·H + O) + E·H·(2·I + O)
    elements.
    Source: GLU variants (arXiv 2002.05202, eqs. 5 and 6), over groups as in MegaBlocks (arXiv 2211.15841).
    """
    x, w_gate, w_up, w_down = autocast(x, w_gate, w_up, w_down)
    _check(x, w_gate, w_up, w_down, activation)
    check_counts("fused_glu_mlp", x, counts, w_gate.shape[0])
    # Triton's products are of float32 at most.
    match pick("cpu" if backend == "auto" and x.dtype == torch.float64 else backend, x):
        case "reference":
            return reference.fused_glu_mlp(x, w_gate, w_up, w_down, counts, activation)
        case "triton":
            # Triton is absent from CPU-only installs
            from kernels.fused_glu_mlp import triton_impl

            return triton_impl.fused_glu_mlp(x, w_gate, w_up, w_down, counts, activation)
    return cpu.fused_glu_mlp(x, w_gate, w_up, w_down, counts, activation)


def _check(x: Tensor, w_gate: Tensor, w_up: Tensor, w_down: Tensor, activation: str) -> None:
    if activation not in ACTIVATIONS:
        raise ValueError(f"fused_glu_mlp: activation must be one of {', '.join(ACTIVATIONS)}; got {activation!r}")
    tensors = {"x": x, "w_gate": w_gate, "w_up": w_up, "w_down": w_down}
    if (
        x.ndim != 2
        or w_gate.ndim != 3
        or w_down.ndim != 3
        or w_gate.shape[1] != x.shape[1]
        or w_up.shape != w_gate.shape
        or w_down.shape[:2] != (w_gate.shape[0], w_gate.shape[2])
    ):
        got = ", ".join(f"{name} {list(t.shape)}" for name, t in tensors.items())
        raise ValueError(
            f"fused_glu_mlp: want x [M, I], w_gate and w_up [E, I, H], w_down [E, H, O]; got {got}; "
            "torch.nn.Linear keeps [O, I]: give w.transpose(1, 2) for that layout"
        )
    if len({(t.dtype, t.device) for t in tensors.values()}) > 1 or not x.is_floating_point():
        got = ", ".join(f"{name} {t.dtype} on {t.device}" for name, t in tensors.items())
        raise ValueError(f"fused_glu_mlp: x and weights must share one floating dtype and one device; got {got}")

"""Grouped matrix product: each expert's rows times that expert's matrix."""

import torch
from torch import Tensor

from kernels.backend import Backend, pick
from kernels.grouped_mm import cpu, reference
from kernels.grouped_mm.groups import autocast, check_counts


def grouped_mm(x: Tensor, w: Tensor, counts: Tensor, *, backend: Backend = "auto") -> Tensor:
    """Multiply rows grouped by expert with their expert's matrix, without padding.

        y[r] = x[r] @ w[e]   for the counts[e] rows r of expert e, which follow those of expert e - 1

    Backward: dx[r] = dy[r] @ w[e]^T, and dw[e] = x[rows of e]^T @ dy[rows of e], zero for an expert without rows.
    Differentiable once, in ``x`` and ``w``. Under autocast both are cast to its dtype, as torch.matmul does.

    Args:
        x: [M, I] float32, bfloat16, float16, or float64 (not in Triton); any strides, contiguous is fastest.
        w: [E, I, O], the dtype of ``x``; any strides, so a transposed [E, O, I] costs no copy.
        counts: [E] integer, the rows of each expert; their sum must be M. Checked on the CPU; on an accelerator a
            check would make the host wait, and rows beyond the sum are undefined.
        backend: "auto" takes Triton on CUDA, the PyTorch form elsewhere.

    Returns:
        y [M, O] in the dtype of ``x``; products are summed in float32 at least.

    Raises:
        ValueError: wrong shapes, dtypes, devices or counts, or a backend that cannot run here.

    Cost: 2·M·I·O FLOPs forward, twice that backward; reads M·I + E·I·O and writes M·O elements, keeps x and w.
    Source: grouped GEMM as in MegaBlocks (arXiv 2211.15841, sec. 4).
    """
    x, w = autocast(x, w)
    _check(x, w)
    check_counts("grouped_mm", x, counts, w.shape[0])
    # Triton's products are of float32 at most.
    match pick("cpu" if backend == "auto" and x.dtype == torch.float64 else backend, x):
        case "reference":
            return reference.grouped_mm(x, w, counts)
        case "triton":
            # Triton is absent from CPU-only installs
            from kernels.grouped_mm import triton_impl

            return triton_impl.grouped_mm(x, w, counts)
    return cpu.grouped_mm(x, w, counts)


def _check(x: Tensor, w: Tensor) -> None:
    if x.ndim != 2 or w.ndim != 3 or x.shape[1] != w.shape[1]:
        raise ValueError(
            f"grouped_mm: x must be [M, I] and w [E, I, O] with one I, got {list(x.shape)} and {list(w.shape)}; "
            "torch.nn.Linear keeps [O, I]: give w.transpose(1, 2) for that layout"
        )
    if x.dtype != w.dtype or not x.is_floating_point():
        raise ValueError(f"grouped_mm: x and w must have one floating dtype, got {x.dtype} and {w.dtype}")
    if x.device != w.device:
        raise ValueError(f"grouped_mm: x is on {x.device} and w on {w.device}; put both on one device")

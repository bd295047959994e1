"""Element-wise linear recurrence over time, real or complex."""

from torch import Tensor

from kernels.backend import Backend, pick
from kernels.linear_scan import cpu, reference

__all__ = ["linear_scan"]


def linear_scan(
    a: Tensor, x: Tensor, h0: Tensor | None = None, *, reverse: bool = False, backend: Backend = "auto"
) -> Tensor:
    """Every state of h_t = a_t ⊙ h_{t−1} + x_t.

    With ``reverse`` time runs from the last step to the first: h_t = a_t ⊙ h_{t+1} + x_t, and ``h0`` is the state
    after the last step.

    The gradient is the same recurrence run the other way: g_t = dh_t + conj(a_{t+1}) g_{t+1}; dx = g,
    da_t = g_t conj(h_{t−1}), dh0 = conj(a_1) g_1.

    Args:
        a: decay, [B, T, D]; float16, bfloat16, float32, float64, complex64 or complex128. Any strides; the channels
            are best contiguous. |a| ≤ 1 in every model here, 0 included; beyond 1 the states grow as the formula says.
        x: input, [B, T, D], any of the same dtypes.
        h0: state before the first step, [B, D]; zeros if None.
        reverse: walk time backwards.
        backend: "auto", "reference", "cpu" or "triton"; see :func:`kernels.backend.pick`.

    Returns:
        h [B, T, D], of the dtype to which PyTorch promotes ``a`` and ``x``. Sums run in float32 or wider, but for
        the reference, which computes in the precision of its inputs.

    Memory: reads a and x, writes h: 3 words an element forward, 5 backward (a, h, dh in; da, dx out); a and h are
    kept for the gradient. 2 FLOPs an element forward, 3 backward (complex: 8 and 14).

    Raises:
        ValueError: shapes or devices disagree, T is 0, or the backend cannot run.

    Source: the recurrence of HGRN (arXiv 2311.04823), minGRU (2410.01201, sec. 3.1), RG-LRU (2402.19427, eq. 4) and,
    with complex decay, GateLoop (2311.01927, sec. 3).
    """
    _check(a, x, h0)
    match pick(backend, x):
        case "reference":
            return reference.linear_scan(a, x, h0, reverse)
        case "triton":
            # Triton is absent from CPU-only installs
            from kernels.linear_scan.triton_impl import linear_scan as on_triton

            return on_triton(a, x, h0, reverse)
    return cpu.linear_scan(a, x, h0, reverse)


def _check(a: Tensor, x: Tensor, h0: Tensor | None) -> None:
    if x.ndim != 3 or a.shape != x.shape:
        raise ValueError(
            f"linear_scan: a and x must share one shape [B, T, D]; got a {tuple(a.shape)}, x {tuple(x.shape)}"
            + ("; expand a to x's shape" if x.ndim == 3 else "")
        )
    if x.shape[1] == 0:
        raise ValueError(f"linear_scan: needs at least one step, got x of shape {tuple(x.shape)} [B, T, D]")
    if h0 is not None and h0.shape != (x.shape[0], x.shape[2]):
        expected = (x.shape[0], x.shape[2])
        raise ValueError(f"linear_scan: h0 must be [B, D] = {expected}, got {tuple(h0.shape)}")
    devices = {str(tensor.device) for tensor in (a, x, h0) if tensor is not None}
    if len(devices) > 1:
        raise ValueError(f"linear_scan: all tensors must be on one device, got {', '.join(sorted(devices))}")
    if not (x.is_floating_point() or x.is_complex()) or not (a.is_floating_point() or a.is_complex()):
        raise ValueError(f"linear_scan: a and x must be real or complex floats, got {a.dtype} and {x.dtype}")

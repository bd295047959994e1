"""Top-k routing: softmax, selection and load of the experts in one pass."""

import torch
from torch import Tensor

from kernels.backend import Backend, pick
from kernels.moe_route import cpu, reference


def moe_route(
    logits: Tensor,
    k: int,
    *,
    bias: Tensor | None = None,
    noise: Tensor | None = None,
    renormalize: bool = True,
    backend: Backend = "auto",
) -> tuple[Tensor, Tensor, Tensor]:
    """Choose the k best experts of every token and weigh them.

        z = logits + noise,   p = softmax(z) in float32
        index = the k largest of z (of p + bias, where a bias is given), ties to the lowest expert
        weight = p[index] / sum(p[index]) = softmax(z[index])   if renormalize, else p[index]

    Selection compares z, not p: their order is one, but p underflows to equal zeros. NaN ranks lowest, so that a
    broken router still names k different experts, with NaN weights. Differentiable in ``logits`` and ``noise``
    through ``weight``. At k = 1 renormalised weights are the constant 1 and give the router no gradient.

    Args:
        logits: [N, E] any floating dtype and strides.
        k: experts a token, 1 <= k <= E.
        bias: [E] or [N, E], added to the probabilities for selection only; no gradient flows into it
            (auxiliary-loss-free balancing, arXiv 2408.15664, eq. 3).
        noise: [N, E], added to the logits before everything (noisy top-k gating, arXiv 1701.06538, eq. 4).
        renormalize: make the k weights of a token sum to one.
        backend: "auto" takes Triton on CUDA, the PyTorch form elsewhere.

    Returns:
        index [N, k] int64, the experts of each token, best first, all different; weight [N, k] float32 (float64 for
        float64 logits), the gate of each choice; counts [E] int64, how many tokens chose each expert.

    Raises:
        ValueError: a wrong shape, dtype or k, or a backend that cannot run here.

    Cost: reads N·E logits once, writes 12·N·k + 8·E bytes; about (4 + k)·N·E operations.
    Source: top-k gating as in Mixtral (arXiv 2401.04088, sec. 2.1).
    """
    _check(logits, k, bias, noise)
    # Triton's form computes in float32.
    match pick("cpu" if backend == "auto" and logits.dtype == torch.float64 else backend, logits):
        case "reference":
            return reference.moe_route(logits, k, bias, noise, renormalize)
        case "triton":
            # Triton is absent from CPU-only installs
            from kernels.moe_route import triton_impl

            return triton_impl.moe_route(logits, k, bias, noise, renormalize)
    return cpu.moe_route(logits, k, bias, noise, renormalize)


def _check(logits: Tensor, k: int, bias: Tensor | None, noise: Tensor | None) -> None:
    if logits.ndim != 2 or not logits.is_floating_point():
        raise ValueError(
            f"moe_route: logits must be floating [N, E], got {logits.dtype} {tuple(logits.shape)}; "
            "flatten batch and time with .flatten(0, -2)"
        )
    num_experts = logits.shape[1]
    if not 1 <= k <= num_experts:
        raise ValueError(f"moe_route: k must lie between 1 and the {num_experts} experts, got {k}")
    if bias is not None and bias.shape not in ((num_experts,), logits.shape):
        raise ValueError(
            f"moe_route: bias must be [{num_experts}] or {list(logits.shape)}, like the experts; got {list(bias.shape)}"
        )
    if noise is not None and noise.shape != logits.shape:
        raise ValueError(f"moe_route: noise must be {list(logits.shape)}, like logits; got {list(noise.shape)}")

"""The gated delta rule in chunks (WY form), with PyTorch's batched matrix products and its autograd.

In a chunk, with Γ_ij = Π_{j<l≤i} exp(g_l) for i ≥ j, p_i = Γ from the chunk's start to i, r_j = Γ from j to its end:

    M = strict lower triangle of diag(β) (K Kᵀ ⊙ Γ),   (I + M) [U, W] = diag(β) [V, diag(p) K]
    U' = U − W S,   O = diag(p) Q S + (Q Kᵀ ⊙ Γ) U',   S ← p_C S + (diag(r) K)ᵀ U'

Γ comes from masked prefix sums, never from the difference of two: so log decays of −inf are safe, and what comes
after a strong decay keeps its precision. Letters: N chunks in all heads, C steps of a chunk.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


def _decays(g_NC: Tensor) -> Tensor:
    """Γ_NCC: the decay from just after column j to row i, 0 above the diagonal."""
    size = g_NC.shape[-1]
    rows = g_NC[..., None].expand(-1, -1, size).tril(-1)  # row l of column j holds g_l where l > j
    # cumsum down the column sums g_{j+1} .. g_i; 0·(−inf) cannot arise because tril selects and does not multiply
    return rows.cumsum(dim=1).exp().tril()


class Chunks(NamedTuple):
    """A call cut into chunks: the two sides of the triangular system, and what reads and writes the state."""

    system_NCC: Tensor  # M, strictly lower triangular
    right_NCX: Tensor  # diag(β) [V, diag(p) K]
    scores_NCC: Tensor  # Q Kᵀ ⊙ Γ
    read_NCK: Tensor  # diag(p) Q
    write_NCK: Tensor  # diag(r) K
    decay_N: Tensor  # p at a chunk's end


def cut(q: Tensor, k: Tensor, v: Tensor, beta: Tensor, log_decay: Tensor, size: int, inner: torch.dtype) -> Chunks:
    """Chunks of ``size`` steps; a padded step has key 0, beta 0 and log decay 0, and leaves the state alone."""
    steps = k.shape[1]

    def chunks(x: Tensor) -> Tensor:
        return F.pad(x.to(inner).transpose(1, 2), (0, 0, 0, -steps % size)).reshape(-1, size, x.shape[-1])

    q_NCK, k_NCK, v_NCV, beta_NC1 = chunks(q), chunks(k), chunks(v), chunks(beta[..., None])
    g_NC = chunks(log_decay[..., None])[..., 0]
    decay_NCC = _decays(g_NC)
    from_start_NC1 = g_NC.cumsum(dim=1).exp()[..., None]
    return Chunks(
        system_NCC=(beta_NC1 * torch.bmm(k_NCK, k_NCK.transpose(1, 2)) * decay_NCC).tril(-1),
        right_NCX=beta_NC1 * torch.cat([v_NCV, from_start_NC1 * k_NCK], dim=-1),
        scores_NCC=torch.bmm(q_NCK, k_NCK.transpose(1, 2)) * decay_NCC,
        read_NCK=q_NCK * from_start_NC1,
        write_NCK=k_NCK * decay_NCC[:, -1, :, None],
        decay_N=from_start_NC1[:, -1, 0],
    )


def gated_delta_rule(
    q: Tensor, k: Tensor, v: Tensor, beta: Tensor, log_decay: Tensor, h0: Tensor | None = None, chunk: int = 64
) -> tuple[Tensor, Tensor]:
    """The chunked form, in float32 or wider; see :func:`kernels.gated_delta_rule`."""
    batch, steps, heads, keys = k.shape
    values = v.shape[-1]
    inner = torch.promote_types(torch.promote_types(k.dtype, v.dtype), torch.float32)
    x = cut(q, k, v, beta, log_decay, min(chunk, steps), inner)
    solved = torch.linalg.solve_triangular(x.system_NCC, x.right_NCX, upper=False, unitriangular=True)

    def by_chunk(y: Tensor) -> tuple[Tensor, ...]:
        return y.view(batch * heads, -1, *y.shape[1:]).unbind(1)

    first = q.new_zeros(batch, heads, keys, values) if h0 is None else h0
    state = first.to(inner).flatten(0, 1)
    outputs = []
    parts = (*solved.split([values, keys], dim=-1), x.scores_NCC, x.read_NCK, x.write_NCK, x.decay_N[:, None, None])
    for u, w, scores, read, write, decay in zip(*map(by_chunk, parts), strict=True):
        fresh = torch.baddbmm(u, w, state, alpha=-1)
        outputs.append(torch.baddbmm(torch.bmm(scores, fresh), read, state))
        state = torch.baddbmm(decay * state, write.transpose(1, 2), fresh)
    o = torch.cat(outputs, dim=1).view(batch, heads, -1, values)[:, :, :steps].transpose(1, 2)
    return o.to(v.dtype), state.view(batch, heads, keys, values)

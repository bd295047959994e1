"""Top-k routing in whole-tensor PyTorch operations; autograd follows them."""

import torch
from torch import Tensor

# One pass of max a kept expert beats a full sort while few are kept; measured at 64 experts.
_MOST_ROUNDS = 16


def moe_route(
    logits: Tensor, k: int, bias: Tensor | None, noise: Tensor | None, renormalize: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """See :func:`kernels.moe_route.moe_route`."""
    z = logits if noise is None else logits + noise
    z = z.double() if z.dtype == torch.float64 else z.float()
    probability = None if renormalize and bias is None else z.softmax(dim=-1)
    score = z.detach()
    if bias is not None and probability is not None:
        score = probability.detach() + bias.detach()
    index = _first_largest(score, k)
    weight = z.gather(1, index).softmax(dim=-1) if probability is None or renormalize else probability.gather(1, index)
    # scatter_add, not bincount: its result has a fixed shape, which torch.compile needs.
    ones = torch.ones((), dtype=torch.int64, device=z.device).expand(index.numel())
    counts = torch.zeros(z.shape[1], dtype=torch.int64, device=z.device).scatter_add_(0, index.flatten(), ones)
    return index, weight, counts


def _first_largest(score: Tensor, k: int) -> Tensor:
    """The k largest of each row, ties to the lowest index (torch.topk promises no order among ties)."""
    limits = torch.finfo(score.dtype)
    score = score.nan_to_num(nan=limits.min, posinf=limits.max, neginf=limits.min)
    if k > _MOST_ROUNDS:
        return score.sort(dim=-1, descending=True, stable=True).indices[:, :k].contiguous()
    rounds = []
    for _ in range(k):
        largest = score.max(dim=-1, keepdim=True).indices
        rounds.append(largest)
        # -inf lies below every score left above, so no expert is taken twice.
        score.scatter_(1, largest, -torch.inf)
    return torch.cat(rounds, dim=-1)

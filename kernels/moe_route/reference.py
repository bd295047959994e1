"""Top-k routing, one token after the other: the judge of the other forms."""

import torch
from torch import Tensor


def moe_route(
    logits: Tensor, k: int, bias: Tensor | None, noise: Tensor | None, renormalize: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """See :func:`kernels.moe_route.moe_route`."""
    z = logits if noise is None else logits + noise
    z = z.double() if z.dtype == torch.float64 else z.float()
    num_tokens, num_experts = z.shape
    counts = torch.zeros(num_experts, dtype=torch.int64, device=z.device)
    indices, weights = [], []
    for n in range(num_tokens):
        probability = z[n].softmax(dim=0)
        score = z[n].detach()
        if bias is not None:
            score = probability.detach() + bias.detach().expand(num_tokens, num_experts)[n]
        score = score.nan_to_num(nan=-torch.inf, posinf=torch.inf, neginf=-torch.inf)
        chosen = score.sort(descending=True, stable=True).indices[:k]
        indices.append(chosen)
        weights.append(z[n][chosen].softmax(dim=0) if renormalize else probability[chosen])
        counts[chosen] += 1
    if not indices:
        return torch.zeros(0, k, dtype=torch.int64, device=z.device), z[:, :k], counts
    return torch.stack(indices), torch.stack(weights), counts

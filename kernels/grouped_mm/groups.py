"""What every operation over rows grouped by expert asks of its inputs."""

import torch
from torch import Tensor


def check_counts(op: str, x: Tensor, counts: Tensor, num_experts: int) -> None:
    """Refuse counts that do not divide the rows of x [M, ...] among the experts.

    Raises:
        ValueError: counts is not an integer [E] beside x, or (looked at on the CPU only) is negative somewhere or
            does not sum to M.
    """
    if counts.shape != (num_experts,) or counts.is_floating_point() or counts.device != x.device:
        raise ValueError(
            f"{op}: counts must be integer [{num_experts}], one for every expert, on {x.device}; "
            f"got {counts.dtype} {list(counts.shape)} on {counts.device}"
        )
    if counts.device.type != "cpu" or torch.compiler.is_compiling():
        return
    sizes = counts.tolist()
    if sum(sizes) != x.shape[0] or min(sizes, default=0) < 0:
        raise ValueError(
            f"{op}: counts must be the rows of each expert and sum to the {x.shape[0]} rows of x; "
            f"got sum {sum(sizes)}, smallest {min(sizes, default=0)}"
        )


def autocast(*tensors: Tensor) -> tuple[Tensor, ...]:
    """The tensors in the dtype that torch.matmul would use here: autocast's where it is on, else as they are."""
    device_type = tensors[0].device.type
    if not torch.is_autocast_enabled(device_type):
        return tensors
    dtype = torch.get_autocast_dtype(device_type)
    return tuple(t if t.dtype == torch.float64 else t.to(dtype) for t in tensors)

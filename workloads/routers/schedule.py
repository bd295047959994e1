"""Routers that change over the training: where the trial is, kept so that a checkpoint resumes exactly."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from workloads.routers.base import GateRouter


class ScheduledRouter(GateRouter):
    """A router that knows how far the training is.

    The step and the total are a buffer, so that they travel with the checkpoint; the fraction is also kept as a
    Python number, because reading a buffer on an accelerator would make the host wait in every forward pass.
    """

    clock: Tensor

    def __init__(self, d_model: int, num_experts: int) -> None:
        super().__init__(d_model, num_experts)
        self.register_buffer("clock", torch.tensor([0, 1]))
        self.progress = 0.0

    def set_progress(self, step: int, total_steps: int) -> None:
        """Called by the trainer before each training step."""
        self.clock.copy_(torch.tensor([step, max(total_steps, 1)]))
        self.progress = step / max(total_steps, 1)

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        step, total = self.clock.tolist()
        self.progress = step / total

"""Numerics of orch: one folder an operation, each with a plain reference, a CPU form and a Triton form."""

from kernels.fused_glu_mlp import fused_glu_mlp
from kernels.grouped_mm import grouped_mm
from kernels.linear_scan import linear_scan
from kernels.moe_dispatch import DispatchPlan, moe_combine, moe_dispatch
from kernels.moe_route import moe_route

__all__ = [
    "DispatchPlan",
    "fused_glu_mlp",
    "grouped_mm",
    "linear_scan",
    "moe_combine",
    "moe_dispatch",
    "moe_route",
]

"""Numerics of orch: one folder an operation, each with a plain reference, a CPU form and a Triton form."""

from kernels.chunk_gla import chunk_gla
from kernels.fused_glu_mlp import fused_glu_mlp
from kernels.fused_rnn import fused_rnn
from kernels.gated_delta_rule import gated_delta_rule
from kernels.grouped_mm import grouped_mm
from kernels.linear_scan import linear_scan
from kernels.moe_dispatch import DispatchPlan, moe_combine, moe_dispatch
from kernels.moe_route import moe_route

__all__ = [
    "DispatchPlan",
    "chunk_gla",
    "fused_glu_mlp",
    "fused_rnn",
    "gated_delta_rule",
    "grouped_mm",
    "linear_scan",
    "moe_combine",
    "moe_dispatch",
    "moe_route",
]

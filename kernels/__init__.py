"""Numerics of orch: one folder an operation, each with a plain reference, a CPU form and a Triton form."""

from kernels import cost
from kernels.chunk_gla import chunk_gla as _chunk_gla
from kernels.compilers import opaque
from kernels.fused_glu_mlp import fused_glu_mlp as _fused_glu_mlp
from kernels.fused_rnn import fused_rnn as _fused_rnn
from kernels.gated_delta_rule import gated_delta_rule as _gated_delta_rule
from kernels.grouped_mm import grouped_mm as _grouped_mm
from kernels.linear_scan import linear_scan as _linear_scan
from kernels.moe_dispatch import DispatchPlan
from kernels.moe_dispatch import moe_combine as _moe_combine
from kernels.moe_dispatch import moe_dispatch as _moe_dispatch
from kernels.moe_route import moe_route as _moe_route

chunk_gla = cost.counted(cost.chunk_gla)(_chunk_gla)
fused_glu_mlp = cost.counted(cost.fused_glu_mlp)(_fused_glu_mlp)
fused_rnn = opaque(cost.counted(cost.fused_rnn)(_fused_rnn))
gated_delta_rule = cost.counted(cost.gated_delta_rule)(_gated_delta_rule)
grouped_mm = cost.counted(cost.grouped_mm)(_grouped_mm)
linear_scan = cost.counted(cost.linear_scan)(_linear_scan)
moe_combine = cost.counted(cost.pointwise)(_moe_combine)
moe_dispatch = cost.counted(cost.pointwise)(_moe_dispatch)
moe_route = cost.counted(cost.pointwise)(_moe_route)

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

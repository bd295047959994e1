"""The gated delta rule where there is no Triton."""

from kernels.gated_delta_rule.chunked import gated_delta_rule

__all__ = ["gated_delta_rule"]

"""Numerics of orch: one folder an operation, each with a plain reference, a CPU form and a Triton form."""

from kernels.linear_scan import linear_scan

__all__ = ["linear_scan"]

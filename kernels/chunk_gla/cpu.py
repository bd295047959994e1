"""Gated linear attention where there is no Triton."""

from kernels.chunk_gla.chunked import chunk_gla

__all__ = ["chunk_gla"]

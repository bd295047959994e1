"""Measurements: what the kernels cost, against named peers in the same run, and what they compile to."""

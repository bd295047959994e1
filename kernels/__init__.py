"""Numerics of orch: one folder an operation, each with a plain reference, a CPU form and a Triton form."""

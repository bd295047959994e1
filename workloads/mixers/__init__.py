"""Sequence mixers: gated recurrences, linear attention, softmax attention. Options stand in `options/`, torch-free."""

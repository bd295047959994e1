"""Around a trained mixture: which experts were used, which can go, where they live, and what padding would cost.

recording -> pruning | placement | buffering ; padding is the comparison that the dropless layer is measured against
`python -m workloads.serving CHECKPOINT` measures all of it on a trial's checkpoint (`report`)
"""

"""Feed-forward layers: dense, gated and mixtures of experts. Options stand in `options/`, torch-free."""

"""Linear baselines, fitted exactly. Shapes: N rows, F features, O outputs."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

ITERATIONS = 100


def ridge(features: np.ndarray, targets: np.ndarray, penalty: float) -> Callable[[np.ndarray], np.ndarray]:
    """The least-squares predictor with an unpenalised constant: argmin Σ|y − Wx − b|² + penalty |W|².

    Args:
        features: [N, F]. targets: [N, O].

    Returns:
        The predictor [·, F] -> [·, O].
    """
    mean_x, mean_y = features.mean(0), targets.mean(0)
    x = features - mean_x
    weights = np.linalg.solve(x.T @ x + penalty * np.eye(x.shape[1]), x.T @ (targets - mean_y))
    return lambda rows: (rows - mean_x) @ weights + mean_y


def softmax_regression(features: np.ndarray, labels: np.ndarray, classes: int) -> Callable[[np.ndarray], Tensor]:
    """Multinomial logistic regression with |W|²/2 beside the summed loss: the predictor [·, F] -> logits [·, O]."""
    y = torch.from_numpy(labels)
    return _fitted(features, classes, lambda logits: F.cross_entropy(logits, y, reduction="sum"))


def logistic_regression(features: np.ndarray, targets: np.ndarray) -> Callable[[np.ndarray], Tensor]:
    """One logistic regression an output, with |W|²/2 beside the summed loss: the predictor [·, F] -> logits [·, O].

    Args:
        targets: [N, O] of 0 and 1.
    """
    y = torch.from_numpy(targets.astype(np.float32))
    return _fitted(features, y.shape[1], lambda logits: F.binary_cross_entropy_with_logits(logits, y, reduction="sum"))


def _fitted(features: np.ndarray, outputs: int, loss: Callable[[Tensor], Tensor]) -> Callable[[np.ndarray], Tensor]:
    x = torch.from_numpy(features.astype(np.float32))
    weight = torch.zeros(x.shape[1], outputs, requires_grad=True)
    bias = torch.zeros(outputs, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=ITERATIONS, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        total = (loss(x @ weight + bias) + weight.square().sum() / 2) / len(x)
        total.backward()
        return total

    with torch.enable_grad():
        optimizer.step(closure)
    return lambda rows: torch.from_numpy(rows.astype(np.float32)) @ weight.detach() + bias.detach()

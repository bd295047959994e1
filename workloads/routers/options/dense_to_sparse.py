"""Options of the gates that begin dense and are made sparse, or stay dense. Torch-free."""

from __future__ import annotations

from typing import Literal

from workloads.method import Method, option, options


@options
class DenseToSparse:
    """EvoMoE: one expert grows into many, then a Gumbel-softmax gate is annealed from dense to top-1.

    Phase 1, the first `diversify` of the training: all tokens go to expert 0 with weight 1. Then every other expert
    becomes a copy of it with a random share of its weights masked. Phase 2: g = softmax((z + Gumbel)/τ), experts with
    g <= threshold are skipped; weights are g (gumbel) or softmax(z), τ falls from `start_temperature` to
    `end_temperature` over `decay`. Phase 3, from `hard` on, and in evaluation: top-1 with weight softmax(z), as
    `switch` without capacity. Loss: E Σ_e ḡ_e m̄_e, m the selection.
    """

    name: Literal["dense_to_sparse"] = "dense_to_sparse"
    diversify: float = option(0.1, "Share of the training with one expert.", ge=0, lt=1, sweep=[0.0, 0.1])
    mask: float = option(0.1, "Share of the weights that is masked in each copy.", ge=0, lt=1, sweep=[0.1, 0.3, 0.5])
    start_temperature: float = option(2.0, "τ at the start of phase 2.", gt=0, sweep=[1.0, 2.0])
    end_temperature: float = option(0.3, "τ at its end.", gt=0, sweep=[0.3, 0.5])
    decay: float = option(
        0.4, "Share of the training over which τ falls, after phase 1.", gt=0, le=1, sweep=[0.1, 0.3, 0.5]
    )
    schedule: Literal["exponential", "linear"] = option("exponential", "How τ falls.")
    hard: float = option(0.6, "Share of the training after which only the argmax stays.", ge=0, le=1)
    threshold: float = option(1e-3, "Gates up to this are skipped.", ge=0, lt=1, sweep=[1e-3, 0.01, 0.05])
    weights: Literal["gumbel", "softmax"] = option("gumbel", "Combine weights in phase 2.", sweep=["gumbel", "softmax"])
    balance_weight: float = option(0.01, "Weight of the balance loss.", ge=0, sweep=[0.001, 0.01, 0.1])


@options
class Gumbel:
    """Dense gate α = softmax((W x + b + G)/τ), G standard Gumbel, one sample a step; no loss.

    Evaluation averages the outputs over `samples` draws, which for one layer is the average of α. The draws of
    evaluation come from a seed of their own, so that evaluation repeats and leaves training's random numbers alone.
    """

    name: Literal["gumbel"] = "gumbel"
    temperature: float = option(1.0, "τ.", gt=0, sweep=[0.3, 0.5, 1.0, 2.0, 5.0])
    samples: int = option(10, "Draws in evaluation; 0 for softmax(W x + b)/τ without noise.", ge=0, sweep=[1, 10, 100])


@options
class TemperatureDenseToSparse:
    """Dense gate softmax((W x + b)/τ) with a fixed, learned or annealed τ; gates up to `threshold` are skipped.

    Annealed, τ falls exponentially from `temperature` to `end_temperature` over `decay` of the training. Placement of
    b and τ is recalled, not read. τ = 1, threshold 0 is the full softmax mixture.
    """

    name: Literal["temperature_dense_to_sparse"] = "temperature_dense_to_sparse"
    mode: Literal["fixed", "learned", "annealed"] = option(
        "learned", "What τ does.", sweep=["fixed", "learned", "annealed"]
    )
    temperature: float = option(1.0, "Initial τ.", gt=0, sweep=[0.3, 1.0, 3.0])
    end_temperature: float = option(0.1, "Final τ when annealed.", gt=0, sweep=[0.03, 0.1, 0.3])
    decay: float = option(0.8, "Share of the training over which τ is annealed.", gt=0, le=1)
    threshold: float = option(1e-3, "Gates up to this are skipped.", ge=0, lt=1, sweep=[0.0, 1e-3])


@options
class ActivationDenseToSparse:
    """Dense gate softmax((φ(W x) + b)/τ): a non-linearity before the softmax makes parameters estimable again.

    φ placed on W x alone is recalled, not read; the abstract says "linear output through an activation". With
    form = sigmoid the gates are independent, σ((φ(W x) + b)/τ), as in arXiv:2405.13997.
    """

    name: Literal["activation_dense_to_sparse"] = "activation_dense_to_sparse"
    activation: Literal["identity", "sigmoid", "tanh", "gelu", "sin"] = option(
        "sigmoid", "φ.", sweep=["identity", "sigmoid", "tanh", "gelu"]
    )
    form: Literal["softmax", "sigmoid"] = option("softmax", "Gate function.", sweep=["softmax", "sigmoid"])
    temperature: float = option(1.0, "τ.", gt=0, sweep=[0.3, 1.0, 3.0])
    threshold: float = option(1e-3, "Gates up to this are skipped.", ge=0, lt=1, sweep=[0.0, 1e-3])


def _method(options_class: type, implementation: str, source: str) -> Method:
    return Method(options_class, f"workloads.routers.{implementation}", source)


METHODS = (
    _method(DenseToSparse, "evolving:DenseToSparse", "EvoMoE, arXiv:2112.14397, sec. 3"),
    _method(Gumbel, "dense:Gumbel", "GG MoE, arXiv:2502.03608, sec. 3"),
    _method(TemperatureDenseToSparse, "dense:Temperature", "Dense-to-sparse gates, arXiv:2401.13875, eq. 2"),
    _method(ActivationDenseToSparse, "dense:Activated", "Dense-to-sparse gates, arXiv:2401.13875, sec. 4"),
)

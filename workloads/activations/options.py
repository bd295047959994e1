"""The activations that a sweep file may name, and the rules on a feed-forward's output. Torch-free.

An activation is *gated* where a second projection multiplies it: y = W_down (φ(W_gate x) ⊙ W_up x); else
y = W_down φ(W_up x).
"""

from __future__ import annotations

from typing import Literal

from workloads.method import Method, option, options, registry

_GLU = "GLU variants, arXiv:2002.05202"


@options
class ReLU:
    """φ(a) = max(a, 0)."""

    name: Literal["relu"] = "relu"


@options
class SiLU:
    """φ(a) = a σ(a)."""

    name: Literal["silu"] = "silu"


@options
class GELU:
    """φ(a) = a Φ(a), or its tanh form ½a(1 + tanh(√(2/π)(a + 0.044715 a³))), at most 4.8e-4 away."""

    name: Literal["gelu"] = "gelu"
    approximate: Literal["none", "tanh"] = option("none", "Exact by erf, or the tanh form.", sweep=["none", "tanh"])


@options
class GLU:
    """Gate σ(W_gate x) ⊙ W_up x."""

    name: Literal["glu"] = "glu"


@options
class Bilinear:
    """Gate W_gate x ⊙ W_up x, homogeneous of degree two: f(λx) = λ² f(x)."""

    name: Literal["bilinear"] = "bilinear"


@options
class ReGLU:
    """Gate max(W_gate x, 0) ⊙ W_up x."""

    name: Literal["reglu"] = "reglu"


@options
class GEGLU:
    """Gate GELU(W_gate x) ⊙ W_up x."""

    name: Literal["geglu"] = "geglu"


@options
class SwiGLU:
    """Gate SiLU(W_gate x) ⊙ W_up x."""

    name: Literal["swiglu"] = "swiglu"


@options
class SwishBeta:
    """φ(a) = a σ(βa), one β a layer; β → 0 gives a/2, β → ∞ gives ReLU."""

    name: Literal["swish_beta"] = "swish_beta"
    beta: float = option(1.0, "Initial β.", sweep=[0.5, 1.0, 2.0])
    trainable: bool = option(True, "Learn β.")
    gated: bool = option(False, "Multiply by a second projection.", sweep=[False, True])


Order = Literal["plain", "first_order", "second_order"]


@options
class XATLU:
    """Expanded arctan gate g(a) = (1 + 2α)(arctan(a)/π + ½) − α, of range (−α, 1 + α).

    plain: a g(a) between two matrices; first_order: g(W_gate x) ⊙ W_up x; second_order:
    g(W_gate x) ⊙ W_gate x ⊙ W_up x. α is one learned scalar a layer. The expansion keeps g symmetric about ½, as
    for xSiLU, so that α = 0 is the plain gate and both ends of the range move by α.
    """

    name: Literal["xatlu"] = "xatlu"
    alpha: float = option(0.0, "Initial value of the learned scalar.")
    order: Order = option("first_order", "Where the gate stands.", sweep=["plain", "first_order", "second_order"])


@options
class XGELU:
    """Expanded erf gate g(a) = (1 + 2α)Φ(a) − α = erf(a/√2)(½ + α) + ½; see `xatlu` for order and α."""

    name: Literal["xgelu"] = "xgelu"
    alpha: float = option(0.0, "Initial value of the learned scalar.")
    order: Order = option("first_order", "Where the gate stands.", sweep=["plain", "first_order", "second_order"])


@options
class XSiLU:
    """Expanded sigmoid gate g(a) = (1 + 2α)σ(a) − α; see `xatlu` for order and α."""

    name: Literal["xsilu"] = "xsilu"
    alpha: float = option(0.0, "Initial value of the learned scalar.")
    order: Order = option("first_order", "Where the gate stands.", sweep=["plain", "first_order", "second_order"])


@options
class PReLU:
    """φ(a) = a where a > 0, else s a, one learned slope s a channel; s = −1 is |a|."""

    name: Literal["prelu"] = "prelu"
    slope: float = option(0.25, "Initial slope.")


@options
class HeLU:
    """ReLU forward; backward 1[a > −α], so that units just below zero keep learning."""

    name: Literal["helu"] = "helu"
    alpha: float = option(0.05, "Width of the open band below zero; 2 is known to harm.", ge=0, sweep=[1e-3, 0.05])


@options
class JumpReLU:
    """φ(a) = a 1[a > θ], θ = exp(t) > 0 learned a channel through a box kernel K of width one.

    ∂φ/∂θ = −(θ/ε) K((a − θ)/ε). With `l0_weight` > 0 the loss `l0` = weight · mean_rows Σ_channels 1[a > θ] joins,
    with ∂1[a > θ]/∂θ = −(1/ε) K((a − θ)/ε).
    """

    name: Literal["jumprelu"] = "jumprelu"
    threshold: float = option(1e-3, "Initial θ.", gt=0, sweep=[1e-3, 1e-2, 0.1])
    bandwidth: float = option(1e-3, "Kernel width ε.", gt=0, sweep=[1e-3, 1e-2])
    l0_weight: float = option(0.0, "Weight of the count of open units.", ge=0, sweep=[0.0, 1e-4, 1e-3])


@options
class SmeLU:
    """Smooth ReLU: 0 below −β, (a + β)²/(4β) up to β, a above."""

    name: Literal["smelu"] = "smelu"
    beta: float = option(1.0, "Half-width of the quadratic part.", gt=0, sweep=[0.5, 1.0, 2.0])


@options
class GroupRational:
    """Rational function a group of channels: P(a)/Q(a), P of degree 5 shared by all groups,
    Q = 1 + Σ_{i=1..4} |b_i| |a|^i one a group.

    Starts as the best fit of the named function for this very denominator (largest error on [−3, 3]: GELU 2.3e-3,
    SiLU 1.8e-5). Computed in float32: the fifth power overflows narrower formats.
    """

    name: Literal["group_rational"] = "group_rational"
    groups: int = option(8, "Groups of channels; must divide the hidden width.", ge=1, sweep=[1, 8])
    start: Literal["gelu", "silu", "identity"] = option("gelu", "The function at the start.")


Inner = Literal["relu", "silu", "gelu", "glu", "bilinear", "reglu", "geglu", "swiglu"]


@options
class ReZero:
    """Scales the layer's output by α, one learned scalar that starts at 0: x + α F(x) is the identity at first."""

    name: Literal["rezero"] = "rezero"
    inner: Inner = option("swiglu", "The activation inside F.", sweep=["gelu", "swiglu"])
    alpha: float = option(0.0, "Initial value of the learned scalar.")


@options
class GatedResidual:
    """Gates the layer's output channel by channel: σ(W x − b) ⊙ F(x), the output gate of GTrXL.

    The gate reads the layer's own (normalised) input. W starts at 0, so every gate starts at σ(−b).
    """

    name: Literal["gated_residual"] = "gated_residual"
    inner: Inner = option("swiglu", "The activation inside F.", sweep=["gelu", "swiglu"])
    bias: float = option(0.0, "Initial b; larger starts nearer to the identity.", sweep=[0.0, 2.0])


@options
class GatedPerceptron:
    """Each hidden unit adds the product of a group of the layer's inputs: h = W x + b + v ⊙ Π_{i in group} x_i.

    One such unit computes XOR over {0, 1}: x1 + x2 − 2 x1 x2. The paper multiplies all inputs; a product of a whole
    model width vanishes, so unit j multiplies group j mod (D/arity) of `arity` inputs. v starts at 0.
    """

    name: Literal["gated_perceptron"] = "gated_perceptron"
    arity: int = option(2, "Inputs multiplied by one unit; the last group may be shorter.", ge=1, sweep=[2, 4])
    inner: Literal["identity", "relu", "gelu"] = option("gelu", "Applied to the sum.", sweep=["identity", "gelu"])


def _method(options_class: type, implementation: str, source: str) -> Method:
    return Method(options_class, f"workloads.activations.{implementation}", source)


ACTIVATIONS = registry(
    (
        _method(ReLU, "fixed:Fixed", "ReLU strikes back, arXiv:2310.04564"),
        _method(SiLU, "fixed:Fixed", "Swish, arXiv:1710.05941"),
        _method(GELU, "fixed:GELU", "GELU, arXiv:1606.08415, sec. 2"),
        _method(GLU, "fixed:Fixed", "Gated linear units, arXiv:1612.08083; " + _GLU),
        _method(Bilinear, "fixed:Fixed", _GLU + ", eq. 5"),
        _method(ReGLU, "fixed:Fixed", _GLU + ", eq. 5"),
        _method(GEGLU, "fixed:Fixed", _GLU + ", eq. 5"),
        _method(SwiGLU, "fixed:Fixed", _GLU + ", eq. 5"),
        _method(SwishBeta, "trainable:SwishBeta", "Swish, arXiv:1710.05941, sec. 3"),
        _method(XATLU, "trainable:Expanded", "Expanded gating ranges, arXiv:2405.20768"),
        _method(XGELU, "trainable:Expanded", "Expanded gating ranges, arXiv:2405.20768"),
        _method(XSiLU, "trainable:Expanded", "Expanded gating ranges, arXiv:2405.20768"),
        _method(PReLU, "trainable:PReLU", "Delving deep into rectifiers, arXiv:1502.01852, eq. 1"),
        _method(HeLU, "thresholded:HeLU", "Hysteresis activation, arXiv:2411.10573"),
        _method(JumpReLU, "thresholded:JumpReLU", "JumpReLU SAEs, arXiv:2407.14435, eq. 5-12"),
        _method(SmeLU, "thresholded:SmeLU", "SmeLU, arXiv:2202.06499"),
        _method(GroupRational, "rational:GroupRational", "Kolmogorov-Arnold transformer, arXiv:2409.10594, sec. 3"),
        _method(ReZero, "residual:ReZero", "ReZero, arXiv:2003.04887, eq. 2"),
        _method(GatedResidual, "residual:GatedResidual", "GTrXL, arXiv:1910.06764, sec. 3.2 (output gate)"),
        _method(GatedPerceptron, "products:GatedPerceptron", "Gated perceptron, arXiv:2409.13854 (abstract)"),
    )
)

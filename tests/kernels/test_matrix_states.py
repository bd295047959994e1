"""chunk_gla and gated_delta_rule on the CPU: against their references, their laws, their edges, their errors."""

import pytest
import torch
import torch.nn.functional as F

from kernels import chunk_gla, gated_delta_rule
from kernels.testing import assert_close

STEPS = [1, 2, 15, 16, 17, 55]  # around a chunk of 16, and three chunks and a bit


def gla_inputs(random, B, T, H, K, V):
    g = -random(B, T, H, K).detach().abs()
    g[:, ::5], g[:, 3::7], g[:, 4::9, :, ::2] = -50, 0, -torch.inf
    return [random(B, T, H, K), random(B, T, H, K), random(B, T, H, V), g.requires_grad_(), random(B, H, K, V)]


def delta_inputs(random, B, T, H, K, V):
    beta, g = 2 * random(B, T, H).detach().sigmoid(), -random(B, T, H).detach().abs()
    beta[:, 1::6], beta[:, 3::6] = 0, 1
    g[:, ::5], g[:, 3::7], g[:, 4::9] = -50, 0, -torch.inf
    k = F.normalize(random(B, T, H, K).detach(), dim=-1).requires_grad_()
    gates = [beta.requires_grad_(), g.requires_grad_()]
    return [random(B, T, H, K), k, random(B, T, H, V), *gates, random(B, H, K, V)]


OPS = {"chunk_gla": (chunk_gla, gla_inputs), "gated_delta_rule": (gated_delta_rule, delta_inputs)}


@pytest.fixture(params=OPS)
def op(request):
    return OPS[request.param]


@pytest.mark.parametrize("T", STEPS)
@pytest.mark.parametrize("with_h0", [False, True])
def test_outputs_state_and_gradients_agree_with_the_reference(cpu_form, op, random, T, with_h0):
    function, make = op
    inputs = make(random, 2, T, 3, 5, 6)
    inputs = inputs if with_h0 else inputs[:-1]
    expected, actual = function(*inputs, backend="reference"), function(*inputs, chunk=16, backend="cpu")
    seeds = [random(*e.shape).detach() for e in expected]
    pairs = zip(torch.autograd.grad(expected, inputs, seeds), torch.autograd.grad(actual, inputs, seeds), strict=True)
    for name, e, a in (("o", expected[0], actual[0]), ("state", expected[1], actual[1])):
        assert_close(name, e, a, rel=1e-9)
    for i, (e, a) in enumerate(pairs):
        assert_close(f"gradient of input {i}", e, a, rel=1e-9)


@pytest.mark.parametrize(("K", "V"), [(1, 1), (16, 64), (20, 70), (33, 16)])
def test_every_width_of_keys_and_values_agrees_in_float32(cpu_form, op, random, K, V):
    function, make = op
    inputs = [x.detach().float().requires_grad_() for x in make(random, 1, 70, 2, K, V)]
    expected, actual = function(*inputs, backend="reference"), function(*inputs, backend="cpu")
    seeds = [random(*e.shape).detach().float() for e in expected]
    pairs = zip(torch.autograd.grad(expected, inputs, seeds), torch.autograd.grad(actual, inputs, seeds), strict=True)
    assert_close("o", expected[0], actual[0], rel=1e-5)
    assert_close("state", expected[1], actual[1], rel=1e-5)
    for i, (e, a) in enumerate(pairs):
        assert_close(f"gradient of input {i}", e, a, rel=2e-5)


def test_gradient_agrees_with_finite_differences(cpu_form, op, random):
    function, make = op
    inputs = make(random, 1, 5, 2, 3, 2)
    finite = [x.detach().clamp(min=-3).requires_grad_() for x in inputs]  # no finite difference at -inf
    assert torch.autograd.gradcheck(lambda *x: function(*x, chunk=2), finite)


@pytest.mark.parametrize("split", [1, 16, 30])
def test_two_halves_with_the_state_carried_give_the_whole(cpu_form, op, random, split):
    function, make = op
    *parts, h0 = make(random, 2, 41, 2, 4, 3)
    whole, last = function(*parts, h0, chunk=16)
    first, state = function(*(x[:, :split] for x in parts), h0, chunk=16)
    second, end = function(*(x[:, split:] for x in parts), state, chunk=16)
    assert_close("o", whole, torch.cat([first, second], dim=1), rel=1e-11)
    assert_close("state", last, end, rel=1e-11)


@pytest.mark.parametrize("chunk", [1, 7, 64])
def test_the_chunk_sets_the_cost_and_not_the_result(cpu_form, op, random, chunk):
    function, make = op
    inputs = make(random, 1, 37, 2, 4, 3)
    assert_close("o", function(*inputs, chunk=16)[0], function(*inputs, chunk=chunk)[0], rel=1e-11)


def test_a_later_input_leaves_earlier_outputs_as_they_were_to_the_bit(cpu_form, op, random):
    function, make = op
    inputs = [x.detach().float() for x in make(random, 1, 40, 2, 8, 8)]
    before, _ = function(*inputs, chunk=16)
    for x in inputs[:-1]:
        x[:, 21:] /= 2
    assert torch.equal(before[:, :21], function(*inputs, chunk=16)[0][:, :21])


def test_strided_inputs_and_decays_shared_by_the_keys_are_read_as_they_stand(cpu_form, random):
    q, k, v = (random(3, 2, 9, 4).permute(1, 2, 0, 3) for _ in range(3))
    g = -random(2, 9, 3, 1).abs().expand(2, 9, 3, 4)
    assert_close("o", chunk_gla(q, k, v, g, backend="reference")[0], chunk_gla(q, k, v, g)[0], rel=1e-12)


def test_low_precision_inputs_keep_a_float32_state(cpu_form, op, random):
    function, make = op
    inputs = [x.detach().bfloat16() for x in make(random, 1, 20, 2, 8, 8)]
    o, state = function(*inputs)
    assert (o.dtype, state.dtype) == (torch.bfloat16, torch.float32)
    expected, _ = function(*(x.float() for x in inputs), backend="reference")
    assert_close("o", expected, o, rel=5e-3)  # the output has 8 bits


def test_no_decay_is_plain_linear_attention(random):
    q, k, v = random(1, 9, 1, 4), random(1, 9, 1, 4), random(1, 9, 1, 3)
    o, _ = chunk_gla(q, k, v, torch.zeros_like(k))
    scores = (q[0, :, 0] @ k[0, :, 0].T).tril()
    assert_close("o", scores @ v[0, :, 0], o[0, :, 0], rel=1e-12)


def test_orthonormal_keys_recall_exactly_and_overwrite(random):
    k = torch.eye(4, dtype=torch.float64)[[0, 1, 2, 0]][None, :, None]
    v = random(1, 4, 1, 3)
    one, zero = torch.ones(1, 4, 1), torch.zeros(1, 4, 1)
    _, state = gated_delta_rule(k, k, v, one, zero)
    assert_close("state", torch.stack([v[0, 3, 0], v[0, 1, 0], v[0, 2, 0]]), state[0, 0, :3], rel=1e-12)


def test_repeated_keys_with_beta_two_stay_exact_where_powers_of_the_system_explode(random):
    k = F.normalize(torch.ones(1, 64, 1, 4, dtype=torch.float64), dim=-1)
    v, two, zero = random(1, 64, 1, 3), torch.full((1, 64, 1), 2.0).double(), torch.zeros(1, 64, 1).double()
    expected = gated_delta_rule(k, k, v, two, zero, backend="reference")[0]
    assert_close("o", expected, gated_delta_rule(k.float(), k.float(), v.float(), two, zero)[0], rel=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"k": (1, 4, 2, 5)}, "share one shape"),
        ({"v": (1, 5, 2, 3)}, r"v must be \[B, T, H, V\]"),
        ({"h0": (1, 2, 3, 4)}, r"h0 must be \[B, H, K, V\] = \(1, 2, 4, 3\)"),
    ],
)
def test_wrong_shapes_are_named(change, message):
    shapes = {"q": (1, 4, 2, 4), "k": (1, 4, 2, 4), "v": (1, 4, 2, 3), "h0": (1, 2, 4, 3)} | change
    q, k, v, h0 = (torch.zeros(shape) for shape in shapes.values())
    with pytest.raises(ValueError, match=f"chunk_gla: .*{message}"):
        chunk_gla(q, k, v, torch.zeros(1, 4, 2, 4), h0)
    with pytest.raises(ValueError, match=f"gated_delta_rule: .*{message}"):
        gated_delta_rule(q, k, v, torch.zeros(1, 4, 2), torch.zeros(1, 4, 2), h0)


def test_gates_with_a_key_axis_and_chunks_of_no_step_are_refused():
    x = torch.zeros(1, 4, 2, 4)
    with pytest.raises(ValueError, match="beta must be"):
        gated_delta_rule(x, x, x, x, x[..., 0])
    with pytest.raises(ValueError, match="chunk must be at least 1"):
        chunk_gla(x, x, x, x, chunk=0)


def test_the_operators_keep_the_rules_that_compilation_relies_on(random):
    q, k, v, g, h0 = (x.detach() for x in gla_inputs(random, 1, 9, 2, 4, 3))
    torch.library.opcheck(torch.ops.orch_kernels.gla, (q, k, v, g, h0))
    q, k, v, beta, g, h0 = (x.detach() for x in delta_inputs(random, 1, 9, 2, 4, 3))
    torch.library.opcheck(torch.ops.orch_kernels.delta, (q, k, v, beta, g.exp(), h0))

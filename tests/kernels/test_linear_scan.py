"""linear_scan on the CPU: against its reference, its laws, its edges, its errors."""

import pytest
import torch

from kernels import linear_scan, native
from kernels.testing import assert_close

CASES = [
    # B, T,  D,  h0,    reverse, dtype,             why this one
    (1, 1, 1, False, False, torch.float64),  # no previous step at all
    (2, 17, 5, True, False, torch.float64),
    (3, 40, 130, True, True, torch.float64),  # three cache lines of channels, backwards in time
    (2, 9, 3, True, False, torch.complex128),
    (2, 9, 3, False, True, torch.complex128),
]


def gates(a):
    """Decays of at most 1 in size, with gates of exactly 0 and 1 and of e^-50 among them."""
    a = (a / (1 + a.abs())).detach()
    a[:, ::5], a[:, 3::7], a[:, 4::6] = 0, 1, torch.tensor(-50.0).exp()
    return a.requires_grad_()


@pytest.mark.parametrize(("B", "T", "D", "with_h0", "reverse", "dtype"), CASES)
def test_states_and_gradients_agree_with_the_reference(cpu_form, random, B, T, D, with_h0, reverse, dtype):
    inputs = [gates(random(B, T, D, dtype=dtype)), random(B, T, D, dtype=dtype)]
    inputs += [random(B, D, dtype=dtype)] if with_h0 else []
    dy = random(B, T, D, dtype=dtype).detach()
    expected = linear_scan(*inputs, reverse=reverse, backend="reference")
    actual = linear_scan(*inputs, reverse=reverse, backend="cpu")
    assert_close("h", expected, actual, rel=1e-12)
    expected_grads, grads = torch.autograd.grad(expected, inputs, dy), torch.autograd.grad(actual, inputs, dy)
    for name, e, g in zip(("da", "dx", "dh0"), expected_grads, grads, strict=False):
        assert_close(name, e, g, rel=1e-12)


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_gradient_agrees_with_finite_differences(cpu_form, random, dtype):
    inputs = (gates(random(2, 7, 3, dtype=dtype)), random(2, 7, 3, dtype=dtype), random(2, 3, dtype=dtype))
    assert torch.autograd.gradcheck(linear_scan, inputs)


def test_the_operator_keeps_the_rules_that_compilation_relies_on(random):
    a, x, h0 = gates(random(2, 5, 3)), random(2, 5, 3), random(2, 3)
    torch.library.opcheck(torch.ops.orch_kernels.linear_scan, (a, x, h0, False))


def test_scan_is_linear_in_its_input_and_first_state(cpu_form, random):
    a, x, y, h, g = random(2, 33, 4).sigmoid(), random(2, 33, 4), random(2, 33, 4), random(2, 4), random(2, 4)
    whole = linear_scan(a, 2 * x - 3 * y, 2 * h - 3 * g)
    assert_close("h", whole, 2 * linear_scan(a, x, h) - 3 * linear_scan(a, y, g), rel=1e-13)


@pytest.mark.parametrize("split", [1, 5, 12])
def test_two_halves_with_the_state_carried_give_the_whole(cpu_form, random, split):
    a, x = random(2, 13, 4).sigmoid(), random(2, 13, 4)
    whole = linear_scan(a, x)
    first = linear_scan(a[:, :split], x[:, :split])
    second = linear_scan(a[:, split:], x[:, split:], first[:, -1])
    assert_close("h", whole, torch.cat([first, second], dim=1), rel=1e-14)


def test_a_later_input_leaves_earlier_states_as_they_were_to_the_bit(random):
    a, x = random(1, 12, 3).sigmoid().detach(), random(1, 12, 3).detach()
    before = linear_scan(a, x)
    a[:, 7:], x[:, 7:] = 0.1, 5.0
    assert torch.equal(before[:, :7], linear_scan(a, x)[:, :7])


def test_low_precision_inputs_are_summed_in_float32(random):
    a, x = torch.full((1, 4096, 1), 1.0, dtype=torch.bfloat16), torch.full((1, 4096, 1), 1.0, dtype=torch.bfloat16)
    h = linear_scan(a, x)
    assert h.dtype is torch.bfloat16
    assert h[0, -1, 0].item() == 4096  # a sum in bfloat16 stops at 256


def test_real_decay_and_complex_input_give_complex_states(random):
    a, x = random(1, 6, 2).sigmoid(), random(1, 6, 2, dtype=torch.complex128)
    assert_close("h", linear_scan(a, x, backend="reference"), linear_scan(a, x), rel=1e-14)


def test_strided_conjugated_and_expanded_inputs_are_read_as_they_stand(cpu_form, random):
    x = random(7, 2, 5, dtype=torch.complex128).transpose(0, 1)
    a = random(5, dtype=torch.complex128).conj().expand(2, 7, 5) / 4
    assert_close("h", linear_scan(a, x, backend="reference"), linear_scan(a, x), rel=1e-13)


def test_threads_share_the_work_without_a_seam(random, monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    for shape in ((4, 300, 64), (1, 300, 200)):
        a, x = random(*shape).sigmoid().detach(), random(*shape).detach()
        assert_close("h", linear_scan(a, x, backend="reference"), linear_scan(a, x), rel=1e-13)


def test_without_a_compiler_the_pytorch_form_serves(monkeypatch, tmp_path, random):
    monkeypatch.setenv("ORCH_KERNEL_CACHE", str(tmp_path))
    monkeypatch.setattr(native.shutil, "which", lambda name: None)
    monkeypatch.setattr(native, "load", native.load.__wrapped__)
    a, x = random(1, 9, 2).sigmoid(), random(1, 9, 2)
    assert_close("h", linear_scan(a, x, backend="reference"), linear_scan(a, x), rel=1e-13)
    assert not list(tmp_path.iterdir())


def test_a_compiler_that_fails_is_told_and_the_pytorch_form_serves(monkeypatch, tmp_path, random, caplog):
    broken = tmp_path / "cc"
    broken.write_text("#!/bin/sh\necho no such flag >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("CC", str(broken))
    monkeypatch.setenv("ORCH_KERNEL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(native, "load", native.load.__wrapped__)
    a, x = random(1, 9, 2).sigmoid(), random(1, 9, 2)
    assert_close("h", linear_scan(a, x, backend="reference"), linear_scan(a, x), rel=1e-13)
    assert "no such flag" in caplog.text


@pytest.mark.parametrize(
    ("a", "x", "h0", "message"),
    [
        ((2, 3, 4), (2, 3, 5), None, r"share one shape \[B, T, D\].*\(2, 3, 4\).*\(2, 3, 5\)"),
        ((2, 0, 4), (2, 0, 4), None, "at least one step"),
        ((2, 3, 4), (2, 3, 4), (4, 2), r"h0 must be \[B, D\] = \(2, 4\), got \(4, 2\)"),
    ],
)
def test_wrong_shapes_are_named(a, x, h0, message):
    with pytest.raises(ValueError, match=message):
        linear_scan(torch.zeros(a), torch.zeros(x), None if h0 is None else torch.zeros(h0))

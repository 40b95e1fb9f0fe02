"""conv3x3 against F.conv2d of the padded image in float64: values, gradients, second derivatives; and where it is native."""

from __future__ import annotations

import copy
import os
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from gcl_fast import _native
from gcl_fast.ops import conv
from gcl_fast.ops.conv import PADDINGS, Conv3x3, conv3x3, image_gradients_only, plain_convolutions

MODES = {"zeros": "constant", "reflect": "reflect", "replicate": "replicate"}
HERE = _native.isa in ("avx2", "avx512")
native_here = pytest.mark.skipif(not HERE, reason="the native convolution needs AVX2")


@pytest.fixture(scope="module", autouse=True)
def small_sizes_too():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(conv, "FEWEST", 4)
        yield


def some(b: int, c: int, k: int, h: int, w: int, dtype=torch.float32, device="cpu"):
    rng = torch.Generator().manual_seed(b + c + k + h + w)
    draw = lambda *shape: torch.randn(*shape, generator=rng, dtype=torch.float64)  # noqa: E731
    x, weight, bias, grad = draw(b, c, h, w), draw(k, c, 3, 3) / (3 * c**0.5), draw(k), draw(b, k, h, w)
    return [t.to(device, dtype) for t in (x, weight, bias, grad)]


def usual(x, weight, bias, padding):
    return F.conv2d(F.pad(x, (1, 1, 1, 1), mode=MODES[padding]), weight, bias)


def with_gradients(function, x, weight, bias, grad):
    inputs = [t.detach().requires_grad_() for t in (x, weight, bias)]
    y = function(*inputs)
    return [y.detach(), *torch.autograd.grad(y, inputs, grad)]


def assert_as_exact(ours, theirs, exact) -> None:
    """At most twice the error of PyTorch's own float32, or some roundings of the largest value."""
    for a, b, want in zip(ours, theirs, exact, strict=True):
        rounding = 8 * torch.finfo(torch.float32).eps * want.abs().max()
        assert a.shape == want.shape and (a - want).abs().max() <= 2 * (b - want).abs().max() + rounding


@native_here
@settings(deadline=None, max_examples=60, derandomize=True)
@given(
    b=st.integers(1, 5),
    c=st.integers(4, 14),
    k=st.integers(4, 14),
    h=st.integers(1, 19),
    w=st.integers(1, 40),
    padding=st.sampled_from(PADDINGS),
)
def test_values_and_gradients_over_random_shapes(b, c, k, h, w, padding) -> None:
    given = some(b, 4 * c, 4 * k, 2 * h, 2 * w)
    assert conv._is_native(*given[:3])
    ours = with_gradients(lambda *t: conv3x3(*t, padding=padding), *given)
    theirs = with_gradients(lambda *t: usual(*t, padding), *given)
    exact = with_gradients(lambda *t: usual(*t, padding), *(t.double() for t in given))
    assert_as_exact(ours, theirs, exact)


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("shape", [(2, 3, 5, 6, 8), (2, 16, 16, 7, 8), (1, 18, 16, 4, 4), (0, 16, 16, 4, 4), (2, 16, 16, 4, 6)])
def test_equals_conv2d_everywhere(shape, padding, device) -> None:
    given = some(*shape, torch.float64, device)
    got, want = (with_gradients(f, *given) for f in (lambda *t: conv3x3(*t, padding=padding), lambda *t: usual(*t, padding)))
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)
    single = [t.float() for t in given]
    torch.testing.assert_close(conv3x3(*single[:3], padding=padding).double(), want[0], rtol=1e-4, atol=1e-5)


@native_here
@pytest.mark.parametrize("padding", PADDINGS)
def test_second_derivatives(padding) -> None:
    """A gradient penalty: of the squared gradient to the image, to image, weight and bias, through an activation."""
    x, weight, bias, _grad = some(2, 16, 20, 6, 10)

    def penalty(function, x, weight, bias):
        inputs = [t.detach().requires_grad_() for t in (x, weight, bias)]
        hidden = F.leaky_relu(function(*inputs), 0.2)
        y = function(hidden, inputs[1].transpose(0, 1), None)
        with image_gradients_only():
            (gradient,) = torch.autograd.grad(y.square().sum(), inputs[0], create_graph=True)
        return torch.autograd.grad(gradient.square().sum(), inputs)

    ours = penalty(lambda *t: conv3x3(*t, padding=padding), x, weight, bias)
    theirs = penalty(lambda *t: usual(*t, padding), x, weight, bias)
    exact = penalty(lambda *t: usual(*t, padding), x.double(), weight.double(), bias.double())
    assert_as_exact(ours, theirs, exact)


@native_here
@pytest.mark.parametrize("padding", [0, 1, 2])
def test_each_op_is_bilinear_with_the_others_as_gradients(padding) -> None:
    x, weight, _, grad = some(2, 16, 16, 4, 6)
    ops = torch.ops.gcl_fast
    y = ops.conv3x3(x, weight, None, padding)
    to_x, to_weight = ops.conv3x3_input(grad, weight, padding), ops.conv3x3_weight(x, grad, padding)
    products = [(y.double() * grad).sum(), (to_x.double() * x).sum(), (to_weight.double() * weight).sum()]
    for p in products[1:]:
        torch.testing.assert_close(p, products[0], rtol=1e-5, atol=1e-4)


@native_here
def test_opcheck() -> None:
    x, weight, bias, grad = (t.requires_grad_() for t in some(2, 16, 20, 4, 6))
    passed = lambda done: all(result == "SUCCESS" for result in done.values())  # noqa: E731
    assert passed(torch.library.opcheck(torch.ops.gcl_fast.conv3x3.default, (x, weight, bias, 1), rtol=1e-3, atol=1e-3))
    assert passed(torch.library.opcheck(torch.ops.gcl_fast.conv3x3.default, (x, weight, None, 0), rtol=1e-3, atol=1e-3))
    assert passed(torch.library.opcheck(torch.ops.gcl_fast.conv3x3_input.default, (grad, weight, 1), rtol=1e-3, atol=1e-3))
    assert passed(torch.library.opcheck(torch.ops.gcl_fast.conv3x3_weight.default, (x, grad, 2), rtol=1e-3, atol=1e-3))


@native_here
@pytest.mark.parametrize("padding", PADDINGS)
def test_same_bits_for_any_number_of_threads_and_batch(padding) -> None:
    given = some(5, 24, 20, 14, 22)
    before = torch.get_num_threads()
    found = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append(with_gradients(lambda *t: conv3x3(*t, padding=padding), *given)[:3])
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(other, found[0], strict=True))
    x, weight, bias, grad = given
    alone = with_gradients(lambda *t: conv3x3(*t, padding=padding), x[2:3], weight, bias, grad[2:3])
    assert torch.equal(alone[0], found[0][0][2:3]) and torch.equal(alone[1], found[0][1][2:3])


@native_here
def test_layouts_are_read_as_they_are() -> None:
    x, weight, bias, _grad = some(2, 16, 16, 8, 6)
    want = conv3x3(x, weight, bias)
    for other in (x.contiguous(memory_format=torch.channels_last), x.transpose(2, 3).contiguous().transpose(2, 3)):
        assert torch.equal(conv3x3(other, weight, bias), want)
    turned = weight.transpose(0, 1).contiguous().transpose(0, 1)
    assert torch.equal(conv3x3(x, turned, bias), want)


@native_here
def test_numbers_that_are_not_finite_stay_where_they_are() -> None:
    x, weight, bias, _ = some(3, 16, 16, 8, 8)
    x[1, 2, 3, 3] = float("nan")
    y = conv3x3(x, weight, bias)
    assert y[1, :, 2:5, 2:5].isnan().all() and y[[0, 2]].isfinite().all() and y[1, :, 6:].isfinite().all()


def test_module_is_a_conv2d() -> None:
    ours = Conv3x3(16, 20, 3, padding=1, padding_mode="reflect")
    theirs = nn.Conv2d(16, 20, 3, padding=1, padding_mode="reflect")
    theirs.load_state_dict(ours.state_dict())
    x = some(2, 16, 20, 8, 6)[0]
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-4, atol=1e-5)
    with plain_convolutions():
        assert torch.equal(ours(x), theirs(x))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(ours(x), theirs(x)) and ours(x).dtype == torch.bfloat16
    assert torch.equal(copy.deepcopy(ours).double()(x.double()), theirs.double()(x.double()))


def test_compiled_and_exported_it_is_conv2d() -> None:
    ours, x = Conv3x3(16, 16, 3, padding=1), some(2, 16, 16, 8, 6)[0]
    graph = torch.export.export(ours, (x,)).graph
    assert any("conv2d" in str(node.target) for node in graph.nodes) and not any(
        "gcl_fast" in str(node.target) for node in graph.nodes
    )
    torch.testing.assert_close(torch.compile(ours, backend="eager", fullgraph=True)(x), ours(x), rtol=1e-4, atol=1e-5)


def test_errors() -> None:
    x, weight, bias, _ = some(2, 16, 16, 8, 6)
    with pytest.raises(ValueError, match="conv3x3: padding must be one of zeros, reflect, replicate, got 'circular'"):
        conv3x3(x, weight, bias, padding="circular")
    for wrong in ((x[:, :12], weight, bias), (x, weight, bias[:4])):
        with pytest.raises(RuntimeError, match="[Ee]xpected"):
            conv3x3(*wrong)
    with pytest.raises(ValueError, match=r"conv3x3: weight must be \[K, C, 3, 3\], got \[16, 16, 2, 3\]"):
        conv3x3(x, weight[:, :, :2], bias)
    with pytest.raises(RuntimeError, match="channels in fours"):
        torch.ops.gcl_fast.conv3x3(x[:, :10], weight[:, :10], bias, 0)
    with pytest.raises(RuntimeError, match="wrong shape"):
        torch.ops.gcl_fast.conv3x3_weight(x, x[:1], 0)


@native_here
def test_the_baseline_kernels_are_right_too() -> None:
    code = """
import torch
import torch.nn.functional as F
from gcl_fast import _native
from gcl_fast.ops import conv

assert _native.isa == "baseline"
rng = torch.Generator().manual_seed(0)
x, w, g = (torch.randn(*s, generator=rng) for s in ((3, 8, 6, 10), (20, 8, 3, 3), (3, 20, 6, 10)))
exact = [t.double().requires_grad_() for t in (x, w)]
y = F.conv2d(*exact, padding=1)
to_x, to_w = torch.autograd.grad(y, exact, g.double())
ops = torch.ops.gcl_fast
for got, want in ((ops.conv3x3(x, w, None, 0), y), (ops.conv3x3_input(g, w, 0), to_x), (ops.conv3x3_weight(x, g, 0), to_w)):
    assert (got - want).abs().max() <= 1e-6 * want.abs().max()
assert torch.equal(conv.conv3x3(x, w), F.conv2d(x, w, padding=1))  # the library's is faster there
"""
    environment = os.environ | {"GCL_ISA": "baseline", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr

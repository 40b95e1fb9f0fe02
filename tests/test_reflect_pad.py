"""reflect_pad against torch's own padding, its gradients, and the convolution that pads by it."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from gcl_fast import _native, ops, reference
from gcl_fast.models.reflect_conv import ReflectConv, gradient_to_image
from tests.threads import threads

FEW = settings(deadline=None, max_examples=40, derandomize=True)
DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
FORMS = (torch.contiguous_format, torch.channels_last)
each_dtype = pytest.mark.parametrize("dtype", DTYPES)
each_form = pytest.mark.parametrize("form", FORMS)


def maps(*shape: int, dtype: torch.dtype = torch.float32, form: torch.memory_format = FORMS[0], seed: int = 0) -> Tensor:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return x.to(dtype).contiguous(memory_format=form)


def gradient(pad_maps, x: Tensor, pad: int, grad: Tensor) -> Tensor:
    x = x.detach().requires_grad_()
    return torch.autograd.grad(pad_maps(x, pad), x, grad)[0]


@FEW
@given(
    batch=st.integers(0, 2),
    channels=st.sampled_from((1, 3, 4, 8, 16)),
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    share=st.floats(0, 1),
    dtype=st.sampled_from(DTYPES),
    form=st.sampled_from(FORMS),
)
def test_it_is_its_definition_and_so_is_its_gradient(batch, channels, height, width, share, dtype, form):
    pad = round(share * (min(height, width) - 1))
    x = maps(batch, channels, height, width, dtype=dtype, form=form)
    got = ops.reflect_pad(x, pad)
    assert torch.equal(got, reference.reflect_pad(x, pad)) and got.dtype == dtype
    assert got.is_contiguous(memory_format=form) or not batch
    grad = maps(*got.shape, dtype=dtype, form=form, seed=1)
    mine, exact = gradient(ops.reflect_pad, x, pad, grad), gradient(reference.reflect_pad, x.double(), pad, grad.double())
    assert mine.dtype == dtype and (mine.is_contiguous(memory_format=form) or not batch)
    wide = 1e-5 if dtype.itemsize == 2 else 8 * torch.finfo(dtype).eps  # sums of at most nine: of halves rounded once
    torch.testing.assert_close(mine.double(), exact, rtol=torch.finfo(dtype).eps / 2 + 1e-6, atol=wide)


@each_form
def test_gradients_of_first_and_second_order(form, device):
    x = maps(2, 3, 4, 5, dtype=torch.float64, form=form).to(device).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: ops.reflect_pad(x, 3), (x,))
    assert torch.autograd.gradgradcheck(lambda x: ops.reflect_pad(x, 3).sin(), (x,))


@each_dtype
@each_form
def test_opcheck(dtype, form, device):
    x = maps(2, 4, 5, 4, dtype=dtype, form=form).to(device).requires_grad_()
    for op, argument, pad in ((torch.ops.gcl_fast.reflect_pad, x, 3), (torch.ops.gcl_fast.reflect_pad_backward, x, 1)):
        ran = torch.library.opcheck(op.default, (argument, pad))
        assert len(ran) == 4 and set(ran.values()) == {"SUCCESS"}


def test_any_strides(device):
    wide = maps(4, 6, 8, 10).to(device)
    strided = {
        "gaps": wide[:, ::2],
        "a part": wide[:, :, 1:6, 2:9],
        "transposed": wide.transpose(2, 3),
        "broadcast": wide[:1].expand(3, -1, -1, -1),
        "a part, channels last": maps(2, 6, 8, 10, form=FORMS[1]).to(device)[:, :, 1:6, 2:9],
        "off whole vectors": torch.cat([wide.flatten()[:1], wide.flatten()])[1:].view(wide.shape),
    }
    for name, x in strided.items():
        got = ops.reflect_pad(x, 2)
        assert torch.equal(got, reference.reflect_pad(x, 2)), name
        assert torch.equal(torch.ops.gcl_fast.reflect_pad(x, 2), got), name
        assert got.is_contiguous(memory_format=FORMS["last" in name]), name
        assert torch.equal(
            gradient(ops.reflect_pad, x, 2, got), gradient(ops.reflect_pad, x.contiguous(), 2, got.contiguous())
        ), name


@each_form
def test_no_bit_depends_on_threads_or_on_the_format(form):
    x = maps(3, 7, 64, 48, dtype=torch.bfloat16)  # in whichever format threads begin amid a map
    grad = maps(3, 7, 70, 54, dtype=torch.bfloat16, seed=1)
    want = ops.reflect_pad(x, 3), gradient(ops.reflect_pad, x, 3, grad)
    for count in (1, 2, 5):
        with threads(count):
            x, grad = (t.contiguous(memory_format=form) for t in (x, grad))
            ops.reflect_pad(-x, 3)  # the next has its memory, so that what is left out shows
            assert torch.equal(ops.reflect_pad(x, 3), want[0])
            gradient(ops.reflect_pad, x, 3, -grad)
            assert torch.equal(gradient(ops.reflect_pad, x, 3, grad), want[1])


def test_what_has_one_reader_keeps_its_bits():
    x = torch.tensor([-0.0, float("inf"), float("nan"), 1e-45] * 4).view(1, 1, 4, 4)
    same = torch.ops.gcl_fast.reflect_pad_backward(x, 0)
    assert torch.equal(same.view(torch.int32), x.view(torch.int32)) and same.data_ptr() != x.data_ptr()
    assert ops.reflect_pad(x, 0).data_ptr() != x.data_ptr()


def test_bad_inputs_are_named():
    x = maps(1, 2, 4, 3)
    cases = [
        (TypeError, "x must be float32 or float64 or bfloat16 or float16, got int64", (x.long(), 1)),
        (ValueError, r"x must have shape \[B, C, H, W\], got \[2, 4, 3\]", (x[0], 1)),
        (TypeError, "pad must be an integer, got float", (x, 1.0)),
        (ValueError, "pad must be at least 0, got -1", (x, -1)),
        (ValueError, "pad must be smaller than H=4 and W=3, got 3", (x, 3)),
        (ValueError, "pad must be smaller than H=0 and W=3, got 0", (x[:, :, :0], 0)),
    ]
    for error, words, arguments in cases:
        with pytest.raises(error, match="reflect_pad: " + words):
            ops.reflect_pad(*arguments)


def test_calling_the_operators_themselves_wrongly_does_not_crash(device):
    x = maps(1, 2, 4, 3).to(device)
    for arguments in ((x[0], 1), (x.long(), 1), (x, -1), (x, 3), (x, 2**62), (x, -(2**63)), (x[..., :0], 0)):
        with pytest.raises(RuntimeError, match="reflect_pad: "):
            torch.ops.gcl_fast.reflect_pad(*arguments)
    for arguments in ((x[0], 0), (x.bool(), 0), (x, -1), (x, 1), (x, 2**62), (x[..., :0], 0)):
        with pytest.raises(RuntimeError, match="reflect_pad_backward: "):
            torch.ops.gcl_fast.reflect_pad_backward(*arguments)


def test_it_runs_compiled(device):
    x = maps(2, 4, 6, 5, form=FORMS[1]).to(device)
    compiled = torch.compile(lambda x: ops.reflect_pad(x, 2) * 2, backend="aot_eager", fullgraph=True)
    assert torch.equal(compiled(x), ops.reflect_pad(x, 2) * 2)
    y = x.clone().requires_grad_()
    compiled(y).sum().backward()
    assert torch.equal(y.grad, gradient(ops.reflect_pad, x, 2, torch.full_like(compiled(x), 2.0)))


# The convolution that pads by it.


def results(conv: ReflectConv, x: Tensor, to_image: bool) -> tuple[Tensor, ...]:
    x = x.detach().requires_grad_()
    if not to_image:
        y = conv(x)
        return y, *torch.autograd.grad(y.square().sum(), (x, conv.weight))
    with gradient_to_image(conv):
        y = conv(x)
    (to_x,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
    return y, to_x, *torch.autograd.grad(to_x.square().sum(), (x, conv.weight))


@pytest.mark.parametrize("to_image", [False, True])
@each_form
def test_the_convolution_is_torchs(form, to_image, monkeypatch, device):
    conv = ReflectConv(3, 4, 5, stride=2, dilation=2).double().to(device)
    x = maps(2, 3, 11, 9, dtype=torch.float64, form=form).to(device)
    got = results(conv, x, to_image)
    with monkeypatch.context() as patch:
        patch.setattr(_native, "loaded", False)
        want = results(conv, x, to_image)
    for mine, theirs in zip(got, want, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-10)
    assert set(conv.state_dict()) == {"weight", "bias"}


def test_the_convolution_pads_what_autocast_makes_of_it(monkeypatch):
    conv, x, seen = ReflectConv(3, 4, 3), maps(1, 3, 8, 6), []
    own = torch.ops.gcl_fast.reflect_pad
    monkeypatch.setattr("gcl_fast.models.reflect_conv.padded", lambda x, pad: seen.append(x.dtype) or own(x, pad))
    with torch.autocast("cpu", dtype=torch.bfloat16), torch.no_grad():
        y = conv(x)
        want = F.conv2d(F.pad(x, (1,) * 4, mode="reflect"), conv.weight, conv.bias)
    assert seen == [torch.bfloat16] and torch.equal(y, want) and y.dtype == torch.bfloat16


def test_the_convolution_pads_by_torch_where_no_kernel_runs():
    with torch.device("meta"):
        assert ReflectConv(3, 4, 3)(torch.empty(2, 3, 8, 6)).shape == (2, 4, 8, 6)
    conv, x = ReflectConv(3, 4, 3), maps(2, 3, 8, 6)
    torch.testing.assert_close(conv(x[0]), conv(x)[0])
    graphs = []
    compiled = torch.compile(conv, backend=lambda graph, inputs: graphs.append(graph.graph) or graph.forward, fullgraph=True)
    torch.testing.assert_close(compiled(x), conv(x))
    assert graphs and not any("gcl_fast" in str(node.target) for node in graphs[0].nodes)
    with pytest.raises(RuntimeError, match="pad"):
        conv(x[..., :1])

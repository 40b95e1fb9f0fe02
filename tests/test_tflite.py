"""TensorFlow Lite files, written here, are read and computed as PyTorch's own operations say."""

from __future__ import annotations

import contextlib
import copy
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from gcl_fast.errors import GclError, InputError
from gcl_fast.estimation.blaze_pose import MIRRORED, BlazePose
from gcl_fast.estimation.tflite_file import read_tflite
from gcl_fast.estimation.tflite_network import TfliteNetwork
from tests.tflite_writer import Graph

RNG = np.random.default_rng(0)


def numbers(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


def small_model() -> tuple[bytes, dict[str, np.ndarray]]:
    """Every kind of operation that BlazePose has, with odd paddings: one output flat, one a picture."""
    w = {"first": numbers(4, 3, 3, 3), "bias": numbers(4), "deep": numbers(1, 5, 5, 4), "last": numbers(6, 3, 3, 4)}
    g = Graph()
    image = g.tensor((1, 9, 12, 3))
    half = g.constant(w["first"].astype(np.float16))
    full = g.add("dequantize", [half], (4, 3, 3, 3))
    strided = {0: ("b", 0), 1: ("i", 2), 2: ("i", 2), 3: ("b", 3)}  # same, relu6
    x = g.add("conv", [image, full, g.constant(w["bias"])], (1, 5, 6, 4), strided)
    same = {0: ("b", 0), 1: ("i", 1), 2: ("i", 1), 3: ("i", 1), 4: ("b", 1)}
    y = g.add("depthwise", [x, g.constant(w["deep"]), -1], (1, 5, 6, 4), same)
    z = g.add("add", [x, y], (1, 5, 6, 4), {0: ("b", 3)})
    pads = g.constant(np.array([[0, 0], [1, 1], [1, 1], [0, 0]], np.int32))
    padded = g.add("pad", [z, pads], (1, 7, 8, 4))
    valid = {0: ("b", 1), 1: ("i", 2), 2: ("i", 2)}
    conv = g.add("conv", [padded, g.constant(w["last"])], (1, 3, 3, 6), valid)
    pooled = g.add("max_pool", [conv], (1, 1, 1, 6), {0: ("b", 1), 1: ("i", 2), 2: ("i", 2), 3: ("i", 2), 4: ("i", 2)})
    flat = g.add("reshape", [pooled, g.constant(np.array([-1, 6], np.int32))], (1, 6))
    big = g.add("resize", [conv, g.constant(np.array([6, 7], np.int32))], (1, 6, 7, 6), {3: ("B", 1)})
    picture = g.add("sigmoid", [big], (1, 6, 7, 6))
    return g.write([image], [flat, picture]), w


def expected(image: torch.Tensor, w: dict[str, np.ndarray]) -> tuple[torch.Tensor, torch.Tensor]:
    first = torch.from_numpy(w["first"].astype(np.float16).astype(np.float32)).permute(0, 3, 1, 2)
    deep, last = torch.from_numpy(w["deep"]).permute(3, 0, 1, 2), torch.from_numpy(w["last"]).permute(0, 3, 1, 2)
    # 9 rows at stride 2: one above and below; 12 columns: one on the right
    x = F.conv2d(F.pad(image, (0, 1, 1, 1)), first, torch.from_numpy(w["bias"]), 2).clamp(0, 6)
    z = (x + F.conv2d(x, deep, padding=2, groups=4).clamp(min=0)).clamp(0, 6)
    conv = F.conv2d(z, last, stride=2, padding=1)
    return F.max_pool2d(conv, 2).flatten(1), F.interpolate(conv, (6, 7), mode="bilinear").sigmoid()


@pytest.fixture
def model(tmp_path: Path) -> tuple[Path, dict[str, np.ndarray]]:
    data, weights = small_model()
    (tmp_path / "small.tflite").write_bytes(data)
    return tmp_path / "small.tflite", weights


def test_a_graph_is_computed_as_pytorch_would(model: tuple[Path, dict[str, np.ndarray]], device: torch.device) -> None:
    path, weights = model
    network = TfliteNetwork(read_tflite(path)).to(device)
    image = torch.from_numpy(numbers(2, 3, 9, 12))
    flat, picture = network(image.to(device))
    wanted_flat, wanted_picture = expected(image, weights)
    torch.testing.assert_close(flat.cpu(), wanted_flat)
    torch.testing.assert_close(picture.cpu(), wanted_picture)
    kinds = [step.kind for step in network.steps]
    assert "dequantize" not in kinds and "pad" not in kinds  # done once, and by the convolution itself


def test_a_large_batch_goes_through_few_at_a_time(
    model: tuple[Path, dict[str, np.ndarray]], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, weights = model
    network = TfliteNetwork(read_tflite(path))
    image = torch.from_numpy(numbers(9, 3, 9, 12))
    sizes, run = [], TfliteNetwork._run
    monkeypatch.setattr(TfliteNetwork, "_run", lambda self, part, *rest: sizes.append(len(part)) or run(self, part, *rest))
    for fused in (True, False):  # oneDNN's own convolutions, and those of every build of PyTorch
        monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda fused=fused: fused)
        for found, wanted in zip(network(image), expected(image, weights), strict=True):
            torch.testing.assert_close(found, wanted)
    assert max(sizes) < 9 and sum(sizes) == 18


@pytest.fixture(scope="module")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> TfliteNetwork:
    """A picture that comes back at its size, by way of one half as large, and a number, as BlazePose has them."""
    g = Graph()
    image = g.tensor((1, 8, 24, 3))
    same = {0: ("b", 0), 1: ("i", 1), 2: ("i", 1), 3: ("b", 1)}
    strided, depthwise = {**same, 1: ("i", 2), 2: ("i", 2)}, {0: ("b", 0), 1: ("i", 1), 2: ("i", 1), 3: ("i", 1)}
    small = g.add("conv", [image, g.constant(numbers(4, 3, 3, 3))], (1, 4, 12, 4), strided)
    deep = g.add("depthwise", [small, g.constant(numbers(1, 5, 5, 4))], (1, 4, 12, 4), depthwise)
    both = g.add("add", [small, deep], (1, 4, 12, 4))
    large = g.add("resize", [both, g.constant(np.array([8, 24], np.int32))], (1, 8, 24, 4), {3: ("B", 1)})
    last = g.add("conv", [large, g.constant(numbers(2, 3, 3, 4)), g.constant(numbers(2))], (1, 8, 24, 2), same)
    picture = g.add("sigmoid", [last], (1, 8, 24, 2))
    pooled = g.add("max_pool", [small], (1, 1, 1, 4), {0: ("b", 1), 1: ("i", 4), 2: ("i", 12), 3: ("i", 12), 4: ("i", 4)})
    flat = g.add("reshape", [pooled, g.constant(np.array([-1, 4], np.int32))], (1, 4))
    path = tmp_path_factory.mktemp("decoder") / "decoder.tflite"
    path.write_bytes(g.write([image], [flat, picture]))
    return TfliteNetwork(read_tflite(path))


def seen_widths(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The widths of the pictures that are convolved from now on."""
    widths: list[int] = []
    convolution = TfliteNetwork._convolution

    def recorded(self: TfliteNetwork, *rest: object) -> Callable[[torch.Tensor], torch.Tensor]:
        convolve = convolution(self, *rest)
        return lambda x: widths.append(x.shape[3]) or convolve(x)

    monkeypatch.setattr(TfliteNetwork, "_convolution", recorded)
    return widths


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("columns", [(0, 24), (0, 9), (3, 21), (8, 13), (11, 12), (13, 24), (9, 16)])
def test_some_columns_of_a_picture_are_those_of_the_whole(
    decoder: TfliteNetwork, columns: tuple[int, int], fused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: fused)
    image = torch.from_numpy(numbers(5, 3, 8, 24))
    flat, picture = decoder(image)
    widths = seen_widths(monkeypatch)
    same, part = decoder(image, {1: columns})
    torch.testing.assert_close(same, flat, rtol=0, atol=0)
    torch.testing.assert_close(part, picture[..., columns[0] : columns[1]])
    if columns == (9, 16):  # the last convolution looks at one more on each side; the 6 below those need 10
        assert widths[:3] == [24, 10, 9]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> TfliteNetwork:
    """A picture half and then a quarter as large, a residual between, as in BlazePose; both are given."""
    g = Graph()
    image = g.tensor((1, 8, 64, 3))
    same, relu6 = {0: ("b", 0), 1: ("i", 1), 2: ("i", 1)}, {3: ("b", 3)}
    strided, depthwise = {0: ("b", 0), 1: ("i", 2), 2: ("i", 2)}, {**same, 3: ("i", 1), 4: ("b", 3)}
    x = g.add("conv", [image, g.constant(numbers(4, 3, 3, 3))], (1, 4, 32, 4), {**strided, **relu6})
    deep = g.add("depthwise", [x, g.constant(numbers(1, 5, 5, 4)), g.constant(numbers(4))], (1, 4, 32, 4), depthwise)
    both = g.add("add", [x, g.add("conv", [deep, g.constant(numbers(4, 1, 1, 4))], (1, 4, 32, 4), same)], (1, 4, 32, 4))
    more = g.add("conv", [both, g.constant(numbers(9, 1, 1, 4))], (1, 4, 32, 9), {**same, **relu6})
    small = g.add("depthwise", [more, g.constant(numbers(1, 3, 3, 9))], (1, 2, 16, 9), {**strided, 3: ("i", 1), 4: ("b", 3)})
    last = g.add("conv", [small, g.constant(numbers(3, 3, 3, 9))], (1, 2, 16, 3), same)
    pooled = g.add("max_pool", [last], (1, 1, 1, 3), {0: ("b", 1), 1: ("i", 2), 2: ("i", 16), 3: ("i", 16), 4: ("i", 2)})
    flat = g.add("reshape", [pooled, g.constant(np.array([-1, 3], np.int32))], (1, 3))
    path = tmp_path_factory.mktemp("encoder") / "encoder.tflite"
    path.write_bytes(g.write([image], [flat, last, both]))
    return TfliteNetwork(read_tflite(path))


@pytest.mark.parametrize("fused", [True, False])
def test_columns_that_repeat_are_computed_once(
    encoder: TfliteNetwork, fused: bool, device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: fused)
    encoder.to(device)
    for first in range(0, 64, 3):
        for past in {first + 1, min(first + 9, 64), 64}:
            image = torch.from_numpy(numbers(3, 3, 8, 64)).to(device)
            image[..., :first], image[..., past:] = image[..., first : first + 1], image[..., past - 1 : past]
            for found, wanted in zip(encoder(image, even=(first, past)), encoder(image), strict=True):
                torch.testing.assert_close(found, wanted)
    image[..., :30], image[..., 33:] = image[..., 30:31], image[..., 32:33]
    wanted = encoder(image)
    widths = seen_widths(monkeypatch)
    for columns in ({}, {2: (11, 13)}, {1: (3, 9), 2: (0, 32)}):
        for place, found in enumerate(encoder(image, columns, (30, 33))):
            first, past = columns.get(place, (0, None))
            torch.testing.assert_close(found, wanted[place][..., first:past])
    assert widths[0] < 40 and max(widths[:4]) < 40  # of 64, and then 32


@pytest.mark.parametrize("even", [(-1, 5), (5, 5), (9, 4), (0, 65)])
def test_even_columns_that_are_not_there_are_an_error(encoder: TfliteNetwork, even: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=r"even must be columns \(first, past\) of the image's 64, got \(-?\d, \d+\)"):
        encoder(torch.zeros(1, 3, 8, 64), even=even)


def test_a_small_picture_under_a_large_kernel(tmp_path: Path) -> None:
    g = Graph()
    image, same = g.tensor((1, 2, 2, 1)), {0: ("b", 0), 1: ("i", 1), 2: ("i", 1)}
    pads = g.constant(np.array([[0, 0], [1, 1], [1, 1], [0, 0]], np.int32))
    out = g.add("conv", [image, g.constant(numbers(1, 4, 4, 1))], (1, 2, 2, 1), same)
    padded = g.add("pad", [image, pads], (1, 4, 4, 1))  # an output that nothing else reads
    (tmp_path / "small.tflite").write_bytes(g.write([image], [out, padded]))
    network = TfliteNetwork(read_tflite(tmp_path / "small.tflite"))
    photo = torch.from_numpy(numbers(2, 1, 2, 2))
    found, around = network(photo)
    weight = getattr(network, f"weight_{network.outputs[0]}")
    torch.testing.assert_close(found, F.conv2d(F.pad(photo, (1, 2, 1, 2)), weight))
    torch.testing.assert_close(around, F.pad(photo, (1, 1, 1, 1)))


def test_some_columns_may_reach_back_to_the_image(tmp_path: Path) -> None:
    g = Graph()
    image, same = g.tensor((1, 4, 9, 1)), {0: ("b", 0), 1: ("i", 1), 2: ("i", 1)}
    out = g.add("sigmoid", [g.add("conv", [image, g.constant(numbers(1, 3, 3, 1))], (1, 4, 9, 1), same)], (1, 4, 9, 1))
    (tmp_path / "short.tflite").write_bytes(g.write([image], [out]))
    network = TfliteNetwork(read_tflite(tmp_path / "short.tflite"))
    photo = torch.from_numpy(numbers(2, 1, 4, 9))
    torch.testing.assert_close(network(photo, {0: (3, 5)})[0], network(photo)[0][..., 3:5])


@pytest.mark.parametrize("columns", [{1: (-3, 10)}, {1: (20, 25)}, {1: (5, 5)}, {1: (9, 4)}, {0: (0, 3)}, {9: (0, 3)}])
def test_columns_that_are_not_there_are_an_error(decoder: TfliteNetwork, columns: dict[int, tuple[int, int]]) -> None:
    with pytest.raises(ValueError, match=r"columns -?\d+ to \d+ of output \d, whose shape is .* are not some of a picture's"):
        decoder(torch.zeros(1, 3, 8, 24), columns)


def test_a_used_network_can_be_copied_written_and_given_other_weights(
    model: tuple[Path, dict[str, np.ndarray]], tmp_path: Path
) -> None:
    network = TfliteNetwork(read_tflite(model[0]))
    image = torch.from_numpy(numbers(1, 3, 9, 12))
    wanted = network(image)
    for other in (copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
        for found, want in zip(other(image), wanted, strict=True):
            torch.testing.assert_close(found, want, rtol=0, atol=0)
    for found, want in zip(network.double()(image.double()), wanted, strict=True):
        torch.testing.assert_close(found.float(), want)
    network.float()
    for buffer in network.buffers():
        buffer.zero_()
    assert network(image)[0].abs().max() == 0  # not by the weights that were there


def test_only_what_the_chosen_outputs_need_is_computed(model: tuple[Path, dict[str, np.ndarray]]) -> None:
    path, weights = model
    read = read_tflite(path)
    network = TfliteNetwork(read, (read.outputs[0],))
    image = torch.from_numpy(numbers(1, 3, 9, 12))
    torch.testing.assert_close(network(image)[0], expected(image, weights)[0])
    assert "sigmoid" not in [step.kind for step in network.steps]
    with pytest.raises(ValueError, match=r"image must be \[B, 3, 9, 12\], got \[1, 3, 9, 9\]"):
        network(image[..., :9])


@pytest.mark.parametrize("keep", [6, 40, 200, 900])
def test_a_damaged_file_says_so(model: tuple[Path, dict[str, np.ndarray]], keep: int) -> None:
    path, _ = model
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(InputError, match=r"weights .*small\.tflite"):
        read_tflite(path)


def test_no_change_of_a_byte_ends_in_anything_but_a_plain_error(model: tuple[Path, dict[str, np.ndarray]]) -> None:
    path, _ = model
    data = path.read_bytes()
    for place in RNG.integers(8, len(data), 150):
        broken = bytearray(data)
        broken[place] ^= 1 << int(RNG.integers(8))
        path.write_bytes(broken)
        with contextlib.suppress(GclError):
            TfliteNetwork(read_tflite(path))


def test_another_model_is_refused_in_one_line(model: tuple[Path, dict[str, np.ndarray]], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"small\.tflite: expected BlazePose's landmark model"):
        BlazePose(model[0])
    (tmp_path / "x.tflite").write_bytes(b"<html>not found</html>")
    with pytest.raises(InputError, match="expected a TensorFlow Lite model"):
        read_tflite(tmp_path / "x.tflite")
    g = Graph()
    image = g.tensor((1, 4, 4, 3))
    out = g.add("resize", [image], (1, 4, 4, 3))
    g.operations[0] = ("unheard", [image], out, {})
    from tests import tflite_writer

    tflite_writer.CODES["unheard"] = 99
    (tmp_path / "y.tflite").write_bytes(g.write([image], [out]))
    with pytest.raises(InputError, match=r"operation number 99 is not known here"):
        read_tflite(tmp_path / "y.tflite")


def test_mirrored_landmarks_are_each_others() -> None:
    assert len(MIRRORED) == 33 and all(MIRRORED[MIRRORED[i]] == i for i in range(33))
    assert MIRRORED[0] == 0 and MIRRORED[11] == 12 and MIRRORED[32] == 31

"""Whatever the graph, columns that repeat are computed once with the results of computing all."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch

from gcl_fast.estimation.tflite_file import read_tflite
from gcl_fast.estimation.tflite_network import TfliteNetwork
from tests.tflite_writer import Graph


class Picture(NamedTuple):
    number: int
    height: int
    width: int
    channels: int


def convolved(graph: Graph, x: Picture, rng: np.random.Generator) -> Picture | None:
    """One kernel for all channels or one for each, of odd sizes, strides, dilations and paddings; None where it does not fit."""
    tall, wide, same = int(rng.choice([1, 3])), int(rng.choice([1, 2, 3, 5])), bool(rng.random() < 0.75)
    stride = int(rng.choice([1, 1, 2]))
    dilation = int(rng.choice([1, 1, 2])) if stride == 1 else 1
    if same:
        height, width = -(-x.height // stride), -(-x.width // stride)
    else:
        height, width = ((n - (k - 1) * dilation - 1) // stride + 1 for n, k in ((x.height, tall), (x.width, wide)))
    if height < 1 or width < 2:
        return None
    depthwise = rng.random() < 0.4
    channels = x.channels if depthwise else int(rng.integers(1, 7))
    shape = (1, tall, wide, channels) if depthwise else (channels, tall, wide, x.channels)
    weights = [graph.constant(rng.normal(size=s).astype(np.float32)) for s in (shape, channels)]
    activation, later = int(rng.choice([0, 1, 3])), int(depthwise)
    settings = {0: ("b", int(not same)), 1: ("i", stride), 2: ("i", stride), 3 + later: ("b", activation)}
    settings |= {4 + later: ("i", dilation), 5 + later: ("i", dilation), **({3: ("i", 1)} if depthwise else {})}
    kind = "depthwise" if depthwise else "conv"
    return Picture(graph.add(kind, [x.number, *weights], (1, height, width, channels), settings), height, width, channels)


def random_graph(rng: np.random.Generator, path: Path) -> TfliteNetwork:
    graph, size = Graph(), (int(rng.integers(4, 9)), int(rng.integers(12, 70)))
    pictures = [Picture(graph.tensor((1, *size, 3)), *size, 3)]
    for _ in range(rng.integers(2, 9)):
        x = pictures[-1] if rng.random() < 0.7 else pictures[rng.integers(len(pictures))]
        shape, kind = (x.height, x.width, x.channels), rng.random()
        if kind < 0.6:
            made = convolved(graph, x, rng)
        elif kind < 0.85:
            others = [other for other in pictures if other[1:] == shape]
            other = others[rng.integers(len(others))]
            made = Picture(graph.add("add", [x.number, other.number], (1, *shape), {0: ("b", 1)}), *shape)
        elif kind < 0.95:  # wider than the image, or folded into a convolution
            sides = (0, 0), (1, 1), (int(rng.integers(1, 5)),) * 2, (0, 0)
            padded = (1, x.height + 2, x.width + 2 * sides[2][0], x.channels)
            pad = graph.add("pad", [x.number, graph.constant(np.array(sides, np.int32))], padded)
            made = convolved(graph, Picture(pad, *padded[1:]), rng) or Picture(pad, *padded[1:])
        else:
            large = (2 * x.height, 2 * x.width)
            size_of = graph.constant(np.array(large, np.int32))
            made = Picture(graph.add("resize", [x.number, size_of], (1, *large, x.channels), {3: ("B", 1)}), *large, x.channels)
        pictures += [made] if made else []
    some = rng.choice(len(pictures), min(3, len(pictures)), replace=False)
    path.write_bytes(graph.write([pictures[0].number], list({pictures[i].number: None for i in (len(pictures) - 1, *some)})))
    return TfliteNetwork(read_tflite(path))


def test_pictures_of_one_width_may_differ_in_stride(tmp_path: Path) -> None:
    rng, graph = np.random.default_rng(0), Graph()
    image = graph.tensor((1, 4, 64, 1))
    kernels = [graph.constant(rng.normal(size=(2, 1, k, 1)).astype(np.float32)) for k in (3, 33)]
    small = graph.add("conv", [image, kernels[0]], (1, 2, 32, 2), {0: ("b", 0), 1: ("i", 2), 2: ("i", 2)})
    valid = graph.add("conv", [image, kernels[1]], (1, 2, 32, 2), {0: ("b", 1), 1: ("i", 1), 2: ("i", 2)})
    both = graph.add("add", [small, valid], (1, 2, 32, 2))
    (tmp_path / "x.tflite").write_bytes(graph.write([image], [both]))
    network = TfliteNetwork(read_tflite(tmp_path / "x.tflite"))
    photo = torch.from_numpy(rng.normal(size=(1, 1, 4, 64)).astype(np.float32))
    photo[..., :30], photo[..., 34:] = photo[..., 30:31], photo[..., 33:34]
    torch.testing.assert_close(network(photo, even=(30, 34)), network(photo), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("seed", range(150))
def test_any_graph_is_computed_as_without_margins(seed: int, tmp_path: Path, device: torch.device) -> None:
    rng = np.random.default_rng(seed)
    network = random_graph(rng, tmp_path / "graph.tflite").to(device)
    channels, height, width = network.input_shape
    for _ in range(4):
        first = int(rng.integers(width))
        past = min(width, first + 1 + int(rng.integers(8)))
        image = torch.from_numpy(rng.normal(size=(2, channels, height, width)).astype(np.float32)).to(device)
        image[..., :first], image[..., past:] = image[..., first : first + 1], image[..., past - 1 : past]
        wanted, columns = network(image), {}
        for place, picture in enumerate(wanted):
            if rng.random() < 0.4:
                begin = int(rng.integers(picture.shape[3]))
                columns[place] = (begin, int(rng.integers(begin, picture.shape[3])) + 1)
        for place, (found, whole) in enumerate(zip(network(image, columns, (first, past)), wanted, strict=True)):
            begin, end = columns.get(place, (0, None))
            torch.testing.assert_close(found, whole[..., begin:end], rtol=1e-4, atol=1e-4 * float(whole.abs().max()))

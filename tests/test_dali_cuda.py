"""What DALI does on a GPU: resizing as Pillow does, and buffers that are decoded into again only when torch's queued kernels have
read them."""

from __future__ import annotations

import contextlib
from types import SimpleNamespace

import numpy as np
import pytest
import torch

pytest.importorskip("nvidia.dali", reason="the DALI loader needs DALI")
pytest.importorskip("PIL", reason="the pictures are written by Pillow")

from gcl_fast.data.loaders.dali import DaliLoader, resized
from gcl_fast.data.plans import Plan
from gcl_fast.records import Record

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="DALI's mixed decoding needs a CUDA GPU")
SIZE, IMAGES, BATCH = (64, 32), 64, 16
SLEEP = 40_000_000  # GPU cycles, some 20 ms: many times what DALI takes to decode a batch


@pytest.fixture
def records(tmp_path):
    from PIL import Image

    rng, made = np.random.default_rng(0), []
    for i in range(IMAGES):
        path = tmp_path / f"{i:04d}_c1s1_{i:06d}_00.jpg"
        colour = rng.integers(0, 256, 3)
        Image.fromarray((np.ones((*SIZE, 3)) * colour).astype(np.uint8)).save(path, quality=95)
        made.append(Record(path, i, 0))
    return made


def plan(batches: int) -> Plan:
    return Plan(tuple(np.arange(BATCH) + BATCH * (i % (IMAGES // BATCH)) for i in range(batches)))


@needs_gpu
@pytest.mark.parametrize("side_stream", [False, True])
def test_a_buffer_is_not_overwritten_while_kernels_that_read_it_are_queued(records, side_stream):
    """Each batch is asked for while the stream sleeps: its reading kernels stand in the queue when DALI decodes the next ones."""
    loader = DaliLoader(records, SIZE, device="cuda", workers=2)
    try:
        want = []
        for batch in loader.epoch(plan(IMAGES // BATCH), 0):
            torch.cuda.synchronize()
            want.append(batch.image.cpu())
        stream = torch.cuda.stream(torch.cuda.Stream()) if side_stream else contextlib.nullcontext()
        with stream:
            taken, batches = [], iter(loader.epoch(plan(40), 1))
            for _ in range(40):
                torch.cuda._sleep(SLEEP)
                taken.append(next(batches).image)
            torch.cuda.synchronize()
        for number, image in enumerate(taken):
            assert torch.equal(image.cpu(), want[number % len(want)]), f"batch {number} holds another one's pixels"
    finally:
        loader.close()


def test_the_executor_can_give_its_outputs_to_a_stream(records):
    loader = DaliLoader(records, SIZE, workers=1)
    try:
        next(iter(loader.epoch(plan(1), 0)))
        assert loader._pipeline.exec_dynamic is True
    finally:
        loader.close()


def test_outputs_belong_to_the_stream_that_is_current_when_they_are_taken(records, monkeypatch):
    """Of an epoch that is gone through and of one that is left, on a GPU; on the CPU none is named."""
    asked: list[object] = []

    def run(*streams: object) -> list[object]:
        asked.append(streams)
        if len(asked) == 3:
            raise StopIteration
        return []

    monkeypatch.setattr(torch.cuda, "current_stream", lambda device=None: ("current", str(device)))
    loader = DaliLoader(records, SIZE, device="cuda:1")
    loader._pipeline = SimpleNamespace(run=run)
    assert loader._run() == []
    loader._drain()
    assert asked == [(("current", "cuda:1"),)] * 3
    loader._pipeline = None
    on_cpu = DaliLoader(records, SIZE)
    on_cpu._pipeline = SimpleNamespace(run=run)
    on_cpu._run()
    assert asked[-1] == ()
    on_cpu._pipeline = None


@pytest.mark.parametrize("size", [(60, 50), (25, 17)])
def test_pictures_are_resized_as_pillow_resizes_them(size):
    """On DALI's CPU: the same operator. An outline in black and white is where overshoots are cut off."""
    from nvidia.dali import fn, pipeline_def, types
    from PIL import Image

    picture = np.zeros((40, 30, 1), np.uint8)
    picture[8:33, 9:21], picture[20:26, 12:15] = 255, 90

    @pipeline_def(batch_size=1, num_threads=1, device_id=None)
    def pipeline():
        return resized(fn, types, fn.external_source(source=lambda: [picture], batch=True), size)

    made = pipeline()
    made.build()
    got = np.asarray(made.run()[0].at(0))[..., 0].astype(int)
    want = np.asarray(Image.fromarray(picture[..., 0]).resize(size[::-1], Image.Resampling.BICUBIC)).astype(int)
    assert got.shape == size and np.abs(got - want).max() <= 2

"""Fixtures of the whole suite: every test of an op runs on each device there is."""

from __future__ import annotations

import pytest
import torch

from gcl_fast.packages import silence_onnxruntime

silence_onnxruntime()  # tests import it, too
DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
if torch.cuda.is_available():
    torch.backends.cudnn.allow_tf32 = False  # tests hold convolutions to float32's rounding
LONG = {"test_warmup_stages", "test_gpu_check_cpu", "test_docs", "test_simt_bank"}  # files of a minute or two


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long files begin first: a worker that began one last would leave the others idle for its time."""
    items.sort(key=lambda item: item.path.stem not in LONG)


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest) -> torch.device:
    """The CPU, and the GPU where there is one."""
    return torch.device(request.param)


@pytest.fixture
def generator() -> torch.Generator:
    """A CPU generator with a fixed seed, so that a test draws the same numbers each time and on each device."""
    return torch.Generator().manual_seed(0)

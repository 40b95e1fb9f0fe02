"""The launch layers without a GPU: *_cuda.cu on a recorded CUDA runtime, called by every public op, kernels on emulated threads.

The record objects to a launch on another stream or device than the tensors', to one without an error check after it, and to
shared memory that was not asked for. Results must be the CPU's.
"""

from __future__ import annotations

from tests.simt.harness import CSRC, MIXED
from tests.simt.host_layer import LAYERS, run
from tests.test_native import CPU_ONLY, OPS


def test_every_launch_layer_calls_the_host_as_it_must() -> None:
    assert len(LAYERS) == len(list(CSRC.rglob("*_cuda.cu"))) > 5
    found = run(LAYERS, MIXED)
    assert found.keys() == set(OPS) - CPU_ONLY, "a case of tests/cuda_cases.py calls each op"
    assert all(op["launches"] >= op["calls"] > 0 for op in found.values()), found

"""Faults planted in a copy of csrc, each of which the tests on emulated threads must find.

    python -m tests.simt.faults            # all of them, about three minutes: a table of what found which
    python -m tests.simt.faults NAME ...   # some; --list shows the names

A fault is one replacement in one file. Either a launch layer shows it (host_layer.py, as tests/test_simt_host.py runs them all),
or a test does, run with the copy in place of csrc. Only the one layer, with the cases of one op, or the one test is compiled and
run. tests/simt/README.md has the outcome.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from tests.cuda_cases import CASES
from tests.simt.harness import CSRC, MIXED, ROOT, SimtError
from tests.simt.host_layer import run


@dataclass(frozen=True)
class Fault:
    """pattern: a regular expression that occurs in csrc/<file>; its first place becomes `instead`.

    seen_by: a launch layer and the op whose cases show it, "neighbors/dbscan_cuda.cu dbscan"; or a test.
    """

    name: str
    file: str
    pattern: str
    instead: str
    seen_by: str


DBSCAN, RASTERIZE = "neighbors/dbscan_cuda.cu dbscan", "rasterize/rasterize_cuda.cu rasterize: fused, a tall image"
BANK = "bank/bank_cuda.cu gcl_memory_loss"
FAULTS = (
    # the two that once passed every test
    Fault("a trap in DBSCAN's retry", "neighbors/dbscan_math.h", r"\ba = old;", "__builtin_trap();", DBSCAN),
    Fault("shared memory not asked for", "rasterize/rasterize_fused.cuh", r"\n *GCL_ALLOW_SHARED\([^;]*;", "", RASTERIZE),
    # what happens between blocks and between a thread's atomics
    Fault("DBSCAN gives up its retry", "neighbors/dbscan_math.h", r"\ba = old;", "return;", DBSCAN),
    Fault(
        "DBSCAN lowers without an atomic",
        "neighbors/dbscan_kernels.cuh",
        r"return atomicMin\(p\.root \+ n, to\);",
        "const int32_t old = p.root[n]; if (to < old) p.root[n] = to; return old;",
        "tests/test_simt_neighbors.py::test_dbscan[0.4-0.6-3-dtype0-random-True]",
    ),
    # what the host calls
    Fault(
        "the default stream", "common/cuda_backend.h", r"(stream_ = )static_cast<cudaStream_t>\(stream\)", r"\1nullptr", DBSCAN
    ),
    Fault(
        "one launch on the default stream", "neighbors/dbscan_kernels.cuh", r"(label_kernel.*)stream", r"\1GclStream{}", DBSCAN
    ),
    Fault("a guard of the wrong device", "common/cuda_backend.h", r"guard_\(like\.get_device_index\(\)\)", "guard_(0)", DBSCAN),
    Fault("no device for the runtime", "common/cuda_backend.h", r"\n *check_cuda\(cudaSetDevice[^;]*;", "", DBSCAN),
    Fault("no error check", "common/cuda_backend.h", r"(void finish\(const char\*) op(\) const \{).*\}", r"\1\2}", DBSCAN),
    # what threads do in a block
    Fault(
        "a missing barrier",
        "warp/warp_kernels.cuh",
        r"\n *__syncthreads\(\);(\n    \}\n    if \(t == 0\))",
        r"\1",
        "tests/test_simt_warp.py::test_flow_gives_the_bits_of_the_cpu_op[body float-True-forward]",
    ),
    Fault(
        "a tile that the next query overwrites",
        "ranking/ranking_kernels.cuh",
        r"__syncthreads\(\);  // the tile",
        "// the tile",
        "tests/test_simt_ranking.py::test_the_kernel_gives_the_bits_of_the_cpu_op[float-True-forward]",
    ),
    Fault(
        "lanes that leave before a warp sum",
        "ranking/ranking_kernels.cuh",
        r"(\n *const int warp_images)",
        r"\n        if (threadIdx.x == 77) return;\1",
        "tests/test_simt_ranking.py::test_the_kernel_gives_the_bits_of_the_cpu_op[float-True-forward]",
    ),
    Fault(
        "one channel too many",
        "interpolate/interpolate_kernels.cuh",
        r"c < f\.channels",
        "c <= f.channels",
        "tests/test_simt_interpolate.py::test_its_backward_gives_the_bits_of_the_cpu_op[float-False-forward]",
    ),
    Fault(
        "a border repeated",
        "reflect_pad/reflect_pad_math.h",
        r"2 \* \(size - 1\) - inside",
        "2 * size - 1 - inside",
        "tests/test_simt_reflect_pad.py::test_padding_gives_the_bits_of_the_cpu_op[double-False-forward]",
    ),
    Fault("blocks rounded down", "common/launch.cuh", r"\(items \+ kThreads - 1\) / kThreads", "items / kThreads", BANK),
    Fault(
        "a source pixel of the wrong image",
        "warp/warp_kernels.cuh",
        r"\(b \* p\.channels \+ (minimum\(first \+ j, p\.channels - 1\))\) \* pixels",
        r"\1 * pixels",
        "tests/test_simt_warp.py::test_warp_gives_the_bits_of_the_cpu_op[False-body-False-forward]",
    ),
)
QUICK = FAULTS[:2]


def planted(fault: Fault, folder: Path) -> Path:
    """A copy of csrc in `folder` with the fault in it."""
    csrc = folder / "csrc"
    shutil.copytree(CSRC, csrc)
    path = csrc / fault.file
    text, count = re.subn(fault.pattern, fault.instead, path.read_text(), count=1)
    if count != 1:
        raise LookupError(
            f"{fault.name}: csrc/{fault.file} has nothing like {fault.pattern}; mend the table in tests/simt/faults.py"
        )
    path.write_text(text)
    return csrc


def finding(fault: Fault) -> str:
    """What the emulation said of the fault, in a line; empty if it found nothing."""
    with tempfile.TemporaryDirectory() as folder:
        csrc = planted(fault, Path(folder))
        if not fault.seen_by.startswith("tests/"):
            layer, cases = fault.seen_by.split(" ", 1)
            if not any(case.name.startswith(cases) for case in CASES):  # a failure that would pass for a finding
                raise LookupError(f"{fault.name}: no case {cases} in tests/cuda_cases.py; mend tests/simt/faults.py")
            try:
                run([layer], MIXED, csrc, cases)
                return ""
            except SimtError as error:
                said, lines = str(error), str(error).strip().splitlines()
        else:
            command = [sys.executable, "-m", "pytest", "-p", "no:benchmark", "-p", "no:cacheprovider", "-o", "timeout=0", "-q"]
            command += ["-x", fault.seen_by]
            done = subprocess.run(
                command, cwd=ROOT, env=os.environ | {"GCL_SIMT_CSRC": str(csrc)}, capture_output=True, text=True, check=False
            )
            if done.returncode not in (0, 1):
                raise SimtError(f"{fault.name}: the tests did not run:\n{done.stdout[-3000:]}{done.stderr[-3000:]}")
            if done.returncode == 0:
                return ""
            said, lines = done.stdout, [line for line in done.stdout.splitlines() if line.startswith("E  ")]
    if "does not compile" in said:
        raise SimtError(f"{fault.name}: the fault does not compile:\n{said}")
    return lines[-1].strip() if lines else "failed"


def main() -> int:
    parser = argparse.ArgumentParser(description="Plants faults in copies of csrc and shows what finds each.")
    parser.add_argument("names", nargs="*", help="of the faults to plant; all without")
    parser.add_argument("--list", action="store_true", help="names only")
    arguments = parser.parse_args()
    if arguments.list:
        print("\n".join(f"{fault.name}  ({fault.file})" for fault in FAULTS))
        return 0
    unknown = set(arguments.names) - {fault.name for fault in FAULTS}
    if unknown:
        parser.error(f"no fault {', '.join(map(repr, sorted(unknown)))}; --list shows the names")
    missed = 0
    for fault in FAULTS:
        if arguments.names and fault.name not in arguments.names:
            continue
        began = time.monotonic()
        found = finding(fault)
        missed += not found
        print(
            f"{'found' if found else 'MISSED':6}  {fault.name}  [{fault.seen_by}, {time.monotonic() - began:.0f} s]  {found}",
            flush=True,
        )
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())

"""What is on this machine: the GPU, its driver, torch, compute-sanitizer; and which source is checked."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from bench.provenance import commit

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ("csrc", "gcl_fast", "bench", "tests", "setup.py", "CMakeLists.txt", "pyproject.toml")
SUFFIXES = (".py", ".h", ".cpp", ".cu", ".cuh", ".txt", ".toml")


@dataclass(frozen=True)
class Machine:
    """What is here; `why_not` says why nothing can be run.

    kind        cuda, or cpu for a rehearsal
    capability  of the GPU, as CMake writes architectures: "90"
    source      digest of the files that are checked: a number belongs to one source
    """

    why_not: str | None = None
    kind: str = "cuda"
    device: str = ""
    capability: str = ""
    driver: str = ""
    python: str = ""
    torch: str = ""
    torch_cuda: str = ""
    sanitizer: str | None = None
    cores: int = 1
    xdist: bool = False
    pytest: bool = True
    commit: str = "unknown"
    source: str = ""

    def identity(self, toy: bool) -> dict[str, str | bool]:
        """What a result belongs to: one of another identity is not taken over."""
        every = asdict(self) | {"toy": toy}
        return {name: every[name] for name in ("device", "driver", "torch", "torch_cuda", "python", "source", "toy")}


def inspect(kind: str = "cuda") -> Machine:
    """This machine, seen by this Python."""
    python = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info < (3, 10):  # noqa: UP036  make gpu-check takes any Python
        return Machine(f"Python >= 3.10 is needed, this is {python}; name another: make gpu-check PYTHON=python3.12")
    try:
        import torch
    except ImportError as error:
        return Machine(f"this Python has no torch ({error}); name one that has: make gpu-check PYTHON=...")
    if tuple(int(n) for n in re.findall(r"\d+", torch.__version__)[:2]) < (2, 10):
        return Machine(f"torch >= 2.10 is needed, this is {torch.__version__}")
    if kind == "cuda" and not torch.cuda.is_available():
        return Machine(
            f"no CUDA GPU here that torch {torch.__version__} can use; nothing was built or run "
            "(--device cpu --toy rehearses every part on the CPU)"
        )
    cuda = kind == "cuda"
    return Machine(
        kind=kind,
        device=torch.cuda.get_device_name() if cuda else processor(),
        capability="".join(map(str, torch.cuda.get_device_capability())) if cuda else "",
        driver=driver() if cuda else "none",
        python=python,
        torch=torch.__version__,
        torch_cuda=str(torch.version.cuda),
        sanitizer=find_sanitizer(),
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        xdist=present("xdist"),
        pytest=present("pytest"),
        commit=commit(),
        source=digest(),
    )


def present(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return "CPU"


def driver() -> str:
    """The driver's version: from nvidia-smi, else from the kernel module."""
    try:
        command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        said = subprocess.run(command, capture_output=True, text=True, check=False, timeout=20).stdout.split()
        if said:
            return said[0]
    except (OSError, subprocess.TimeoutExpired):
        pass
    try:
        return Path("/sys/module/nvidia/version").read_text().strip()
    except OSError:
        return "unknown"


def find_sanitizer() -> str | None:
    nvcc = shutil.which("nvcc")
    homes = [os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH"), "/usr/local/cuda"]
    homes += [str(Path(nvcc).resolve().parent.parent)] if nvcc else []
    for name in ("compute-sanitizer", *(f"{home}/bin/compute-sanitizer" for home in homes if home)):
        if found := shutil.which(name):
            return found
    return None


def digest() -> str:
    """Of every source file that builds, checks or measures."""
    files = [ROOT / name for name in SOURCES if (ROOT / name).is_file()]
    for folder in (ROOT / name for name in SOURCES if (ROOT / name).is_dir()):
        files += [path for path in folder.rglob("*") if path.suffix in SUFFIXES and path.is_file()]
    whole = hashlib.sha256()
    for path in sorted(files):
        whole.update(f"{path.relative_to(ROOT)}\0".encode() + path.read_bytes())
    return whole.hexdigest()[:12]


def plain(text: str) -> str:
    """Without this machine's folders."""
    folders = {sys.executable: "python", f"{ROOT}/": "", str(ROOT): ".", sys.prefix: "PREFIX", str(Path.home()): "~"}
    for folder, name in folders.items():
        text = text.replace(folder, name) if folder not in ("", "/") else text
    return text


def file_name(device: str) -> str:
    """gpu_<device>, as it may stand in a file's name: "NVIDIA H100 80GB HBM3" is gpu_nvidia_h100_80gb_hbm3."""
    return "gpu_" + re.sub(r"[^a-z0-9]+", "_", device.lower()).strip("_")

"""Builds gcl_fast._C with CMake; everything else about the package is in pyproject.toml.

Environment: GCL_CUDA=0|1 turns the CUDA kernels off or demands them (default: on when nvcc is found and torch is a CUDA build);
GCL_CUDA_ARCHITECTURES ("80;90-real", "native": the GPUs of this machine, "all": the usual ones) or TORCH_CUDA_ARCH_LIST
("8.0;9.0+PTX") choose the GPU architectures (default: native where torch sees a GPU, else all); CUDA_HOME or CUDACXX name the
toolkit; CXX and CXXFLAGS the C++ compiler and its flags; GCL_BUILD_DIR moves the build tree; MAX_JOBS limits parallel compilers.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
# Machine code for T4 and RTX 20; for A100, which A10, RTX 30 and RTX 40 run, too (86 and 89 have the same major number); for H100
# and H200; for B200, which B300 runs, too (103); for RTX 50. Elsewhere the driver compiles the PTX of 90 or 120 at the first use:
# each architecture more makes the build a sixth longer, and where such a GPU is, it is built for.
ARCHITECTURES = ("75", "80", "90", "100", "120")
TEXT = ("90", "120")  # of these the PTX, too
FALSE = ("0", "off", "false", "no")
TRUE = ("1", "on", "true", "yes")
# What CMake reads when a build tree is new, and what it takes by itself.
READ_ONCE = {"CXX": "c++", "CXXFLAGS": "", "CUDAHOSTCXX": "", "CUDAFLAGS": "", "LDFLAGS": ""}


def version() -> str:
    match = re.search(r'__version__ = "([^"]+)"', (ROOT / "gcl_fast/__init__.py").read_text())
    if match is None:
        raise SystemExit("gcl_fast/__init__.py has no __version__")
    return match.group(1)


def tool(name: str) -> str | None:
    """A program beside this Python (pip puts cmake and ninja there), else on PATH."""
    return shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)


def jobs() -> str:
    asked = os.environ.get("MAX_JOBS", "").strip() or str(os.cpu_count() or 1)
    if not asked.isdecimal() or int(asked) == 0:
        raise SystemExit(f"MAX_JOBS must be a number above 0, got {asked!r}")
    return asked


def find_nvcc() -> Path | None:
    """The compiler itself, not a link or a script in front of it: its folder decides where the toolkit is."""
    named = [os.environ.get("CUDACXX")] + [f"{os.environ[k]}/bin/nvcc" for k in ("CUDA_HOME", "CUDA_PATH") if os.environ.get(k)]
    for name in (*named, "nvcc", "/usr/local/cuda/bin/nvcc"):
        program = shutil.which(name) if name else None
        if program is None:
            continue
        dry_run = subprocess.run([program, "--dryrun", "-x", "cu", "-E", os.devnull], capture_output=True, text=True, check=False)
        top = re.search(r"^#\$ TOP=(.+)$", dry_run.stderr + dry_run.stdout, re.MULTILINE)
        compiler = Path(top.group(1)).resolve() / "bin/nvcc" if top else Path(program).resolve()
        return compiler if compiler.is_file() else Path(program).resolve()
    return None


def want_cuda(torch_cuda: str | None, nvcc: Path | None) -> bool:
    asked = os.environ.get("GCL_CUDA", "").strip().lower()
    if asked not in ("", *FALSE, *TRUE):
        raise SystemExit(f"GCL_CUDA must be 0 or 1, got {asked!r}")
    if asked in TRUE and nvcc is None:
        raise SystemExit("GCL_CUDA=1, but nvcc was not found: put it on PATH or set CUDA_HOME")
    return asked in TRUE or (asked == "" and nvcc is not None and torch_cuda is not None)


def architectures(nvcc: Path) -> str:
    """CMake's list of CUDA architectures: as asked, else this machine's GPUs, as torch's own extensions are built and in a third
    of the time; without one, or where this nvcc does not know it, the usual ones that it knows, the newest as PTX too."""
    asked = os.environ.get("GCL_CUDA_ARCHITECTURES", "").replace(",", ";").replace(" ", ";").strip(";")
    if asked == "native":
        return native()
    if asked not in ("", "all"):
        return asked
    names: list[str] = []
    for item in re.split(r"[;, ]+", os.environ.get("TORCH_CUDA_ARCH_LIST", "").strip()):
        match = re.fullmatch(r"(\d+)\.(\d+)([af]?)(\+PTX)?", item)
        if item and not match:
            raise SystemExit(f"TORCH_CUDA_ARCH_LIST: expected numbers such as 9.0 or 9.0+PTX, got {item!r}")
        if match:
            number = "".join(match.groups("")[:3])
            names.append(number if match[4] else f"{number}-real")
    if names and asked != "all":
        return ";".join(names)
    supported = subprocess.run([str(nvcc), "--list-gpu-arch"], capture_output=True, text=True, check=True).stdout.split()
    if asked != "all" and (here := visible()) and all(f"compute_{a}" in supported for a in here):
        return ";".join(f"{a}-real" for a in here)
    known = [a for a in ARCHITECTURES if f"compute_{a}" in supported]
    if not known:
        raise SystemExit(f"{nvcc} knows none of the architectures {', '.join(ARCHITECTURES)}: set GCL_CUDA_ARCHITECTURES")
    return ";".join(a if a in TEXT or a == known[-1] else f"{a}-real" for a in known)


def visible() -> list[str]:
    """The architectures of this machine's GPUs."""
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    found = sorted({torch.cuda.get_device_capability(i) for i in range(count)})
    return [f"{major}{minor}" for major, minor in found]


def native() -> str:
    """Machine code for the GPUs of this machine."""
    found = visible()
    if not found:
        raise SystemExit("GCL_CUDA_ARCHITECTURES=native, but torch finds no CUDA GPU here: give a number, such as 90 for H100")
    return ";".join(f"{a}-real" for a in found)


class CMakeBuild(build_ext):
    def build_extension(self, ext: Extension) -> None:
        try:
            import torch
        except ImportError as error:
            raise SystemExit(f"building gcl_fast needs torch >= 2.10 in this Python: {error}") from None
        if tuple(int(n) for n in re.findall(r"\d+", torch.__version__)[:2]) < (2, 10):
            raise SystemExit(f"building gcl_fast needs torch >= 2.10, found {torch.__version__}")
        cmake = tool("cmake")
        if cmake is None:
            raise SystemExit("building gcl_fast needs cmake >= 3.22: pip install cmake ninja")

        nvcc = find_nvcc()
        cuda = want_cuda(torch.version.cuda, nvcc)
        target = Path(self.get_ext_fullpath(ext.name)).resolve()
        tag = f"{sys.implementation.cache_tag}-torch{torch.__version__}-{'cuda' if cuda else 'cpu'}"
        tree = Path(os.environ.get("GCL_BUILD_DIR") or ROOT / "build").resolve() / re.sub(r"[^\w.+-]", "_", tag)
        torch_root = Path(torch.__file__).resolve().parent
        options = {
            "CMAKE_BUILD_TYPE": "Debug" if self.debug else "Release",
            "GCL_VERSION": version(),
            "GCL_OUTPUT": tree / "out",
            "GCL_SUFFIX": sysconfig.get_config_var("EXT_SUFFIX"),
            "GCL_PYTHON_INCLUDE": sysconfig.get_path("include"),
            "GCL_TORCH_INCLUDE": torch_root / "include",  # also holds pybind11's headers
            "GCL_TORCH_LIB": torch_root / "lib",
            "GCL_TORCH_VERSION": torch.__version__,
            "GCL_CUDA": "ON" if cuda else "OFF",
        }
        if cuda and nvcc is not None:
            options |= {"CMAKE_CUDA_COMPILER": nvcc, "CMAKE_CUDA_ARCHITECTURES": architectures(nvcc)}
        configure = [cmake, "-S", str(ROOT), "-B", str(tree), *(f"-D{k}={v}" for k, v in options.items())]
        ninja = tool("ninja")
        if ninja:
            configure += ["-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={ninja}"]
        kernels = f"CUDA kernels with {str(nvcc)!a}" if cuda else "CPU kernels only"
        print(f"gcl_fast: {kernels}; build tree {str(tree)!a}", flush=True)  # any terminal takes ASCII
        read_once = [f"{name}={os.environ.get(name) or usual}" for name, usual in READ_ONCE.items()]
        chosen = os.fsencode("\n".join([*configure, *read_once]))
        options_file = tree / "options.txt"  # other options: start afresh, CMake cannot change its compiler
        if options_file.is_file() and options_file.read_bytes() != chosen:
            shutil.rmtree(tree)
        tree.mkdir(parents=True, exist_ok=True)
        options_file.write_bytes(chosen)
        try:
            subprocess.run(configure, check=True)
            subprocess.run([cmake, "--build", str(tree), "--parallel", jobs()], check=True)
        except subprocess.CalledProcessError as error:  # our own lines below the compiler's would hide them
            raise SystemExit(f"building gcl_fast failed, for the reason above: cmake ended with {error.returncode}") from None
        target.parent.mkdir(parents=True, exist_ok=True)
        # A new file, not new bytes in the old one: a running process keeps what it has loaded.
        new_module = target.with_name(target.name + ".new")
        shutil.copy2(tree / "out" / f"_C{options['GCL_SUFFIX']}", new_module)
        new_module.replace(target)


class BuildPy(build_py):
    def run(self) -> None:
        super().run()
        if not self.editable_mode:  # an editable install reads configs/ where it lies
            folder = Path(self.build_lib) / "gcl_fast/configs"
            folder.mkdir(parents=True, exist_ok=True)
            for file in sorted((ROOT / "configs").glob("*.yaml")):
                self.copy_file(str(file), str(folder / file.name))


setup(
    version=version(),
    license="Apache-2.0",
    ext_modules=[Extension("gcl_fast._C", sources=[])],
    cmdclass={"build_ext": CMakeBuild, "build_py": BuildPy},
)

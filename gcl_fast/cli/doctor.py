"""gcl-fast doctor: what was found and built on this machine, what is missing and how to get it."""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import platform
import shutil
import sys
from dataclasses import dataclass

from gcl_fast.cli import waits
from gcl_fast.cli.failures import TRACEBACK_HELP
from gcl_fast.packages import PACKAGES, OptionalPackage, silence_onnxruntime


@dataclass(frozen=True)
class Finding:
    """One line of the doctor: ok None marks a fact that is neither good nor bad."""

    ok: bool | None
    name: str
    text: str


def _version(distributions: tuple[str, ...]) -> str:
    for name in distributions:
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return ""


def _native() -> list[Finding]:
    from gcl_fast import _native

    built = _native.info()
    if not built.loaded:
        return [Finding(False, "kernels", f"not loaded: {built.error}; build with: {_native.BUILD}")]
    text = f"CPU ({built.isa}): gcl_fast {built.version}, built against torch {built.torch_version}"
    findings = [Finding(True, "kernels", text)]
    if built.cuda:
        kinds = ", ".join(built.architectures)
        findings.append(Finding(True, "CUDA kernels", f"built with CUDA {built.cuda_version} for architectures {kinds}"))
    else:
        findings.append(Finding(None, "CUDA kernels", f"not built: {_how_to_build_cuda()}"))
    return findings


def _how_to_build_cuda() -> str:
    import torch

    from gcl_fast import _native

    lacking = ["a torch that was built for CUDA"] * (torch.version.cuda is None) + ["the CUDA toolkit"] * (_nvcc() is None)
    first = f"install {' and '.join(lacking)}, then run" if lacking else "GCL_CUDA was 0, or nvcc came later; run"
    return f"{first}: GCL_CUDA=1 {_native.BUILD}"


def _nvcc() -> str | None:
    """Its path, sought where the build does."""
    homes = [f"{os.environ[name]}/bin/nvcc" for name in ("CUDA_HOME", "CUDA_PATH") if os.environ.get(name)]
    places = (os.environ.get("CUDACXX", ""), *homes, "nvcc", "/usr/local/cuda/bin/nvcc")
    return next((found for place in places if (found := shutil.which(place))), None)


def _torch() -> list[Finding]:
    import torch

    from gcl_fast import _native
    from gcl_fast.cli.gpu_coverage import coverage
    from gcl_fast.progress import counted
    from gcl_fast.stages.amp import has_bfloat16

    built = _native.info()
    findings = [Finding(True, "torch", f"{torch.__version__}, {counted(torch.get_num_threads(), 'thread')}")]
    if torch.cuda.is_available():
        for i in range(torch.cuda.device_count()):
            properties = torch.cuda.get_device_properties(i)
            runs, words = coverage(built.architectures, (properties.major, properties.minor), _native.BUILD)
            bf16 = "bfloat16" if has_bfloat16(torch.device("cuda", i)) else "no bfloat16 (precision auto keeps float32)"
            size = f"{properties.total_memory / 2**30:.0f} GiB"
            text = f"{properties.name}, sm_{properties.major}{properties.minor}, {size}, {bf16}; {words}"
            findings.append(Finding(runs, f"GPU {i}", text))
    else:
        reason = f"torch was built for CUDA {torch.version.cuda}" if torch.version.cuda else "torch was built without CUDA"
        findings.append(Finding(None, "GPU", f"none found ({reason}); everything runs on the CPU"))
    bf16 = "in hardware" if has_bfloat16(torch.device("cpu")) else "not in hardware: precision auto keeps float32"
    findings.append(Finding(None, "bfloat16 on CPU", bf16))
    return findings


def _cores() -> list[Finding]:
    """What training finds of the cores at its start."""
    import torch

    from gcl_fast.progress import counted
    from gcl_fast.runs.cpu_threads import CHOSEN_BY, fitting_threads
    from gcl_fast.stages.core_use import SAMPLE, allowed_cores, cores, free_cores

    allowed, free, usual = allowed_cores(), free_cores(SAMPLE), torch.get_num_threads()
    given = next((f"{name}={os.environ[name]}" for name in CHOSEN_BY if os.environ.get(name)), "")
    threads = usual if given else fitting_threads(usual, allowed, free)
    text = f"{allowed:.3g} may be used" + ("" if free is None else f", {free:.1f} of {len(cores())} are free now")
    text += f": train would take {counted(threads, 'thread')}" + (f" ({given})" if given else "")
    if not given and threads < usual:
        text += f" instead of {usual}, since threads beside a busy process wait for each other; --threads N chooses"
    waiting = {name: os.environ[name] for name in waits.VARIABLES if name in os.environ}
    how = ", ".join(f"{name}={value}" for name, value in waiting.items()) or "as the libraries do"
    return [Finding(None, "cores", text), Finding(None, "threads wait", how)]


def _package(package: OptionalPackage) -> Finding:
    name, purpose = package.module, package.purpose
    try:
        importlib.import_module(name)
    except ModuleNotFoundError:
        return Finding(False, name, f"missing ({purpose}): {package.install}")
    except Exception as error:  # a broken installation may raise anything
        return Finding(False, name, f"broken ({purpose}): {type(error).__name__}: {error}; reinstall: {package.install}")
    return Finding(True, name, f"{_version(package.distributions)} ({purpose})")


def examine() -> list[Finding]:
    """Everything the doctor knows, in order."""
    findings = [Finding(True, "python", f"{platform.python_version()} on {platform.system()} {platform.machine()}")]
    findings += _torch() + _cores() + _native()
    nvcc = _nvcc()
    findings.append(Finding(None, "nvcc", nvcc or "not found: CUDA kernels cannot be built here"))
    silence_onnxruntime()
    findings += [_package(package) for package in PACKAGES]
    return findings


def table(findings: list[Finding]) -> str:
    marks = {True: "ok", False: "--", None: "  "}
    width = max(len(finding.name) for finding in findings)
    return "\n".join(f"{marks[f.ok]}  {f.name:<{width}}  {f.text}" for f in findings)


def main(argv: list[str]) -> int:
    """0 when the kernels load; optional packages may be missing."""
    if argv and argv[0] in ("-h", "--help"):
        print(f"usage: gcl-fast doctor (it takes no options)\n\n{TRACEBACK_HELP}")
        return 0
    if argv:
        print(f"gcl-fast doctor: it takes no options but --traceback, got {argv[0]}", file=sys.stderr)
        return 2
    findings = examine()
    print(table(findings))
    return 0 if all(f.ok for f in findings if f.name == "kernels") else 1

"""What the compiler made of each kernel: registers, stack, spills, shared memory, instructions by class; from the built module.

    python bench/machine_code.py [gcl_fast/_C*.so] [--arch sm_90] [--kernel NAME] [--json OUT.json]

`cuobjdump` reads it: from PATH, the CUDA toolkit, or the `triton` package (`triton/backends/nvidia/bin`), which comes with torch.
No GPU is needed. Counts are of instructions in the code, not of those that run: a loop's body counts once.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# Class of an instruction by its opcode; the first pattern that matches the whole of it, without its ".suffixes", decides.
CLASSES = {
    "tensor": r"[HIDQ]MMA|U?[HIQB]GMMA|UTC\w*MMA|BMMA|OMMA",
    "fp32": r"F(FMA|ADD|MUL|MNMX|SEL|SET|SETP|CHK|SWZADD)\w*",
    "fp64": r"D(FMA|ADD|MUL|MNMX|SETP)\w*",
    "half": r"H(FMA2|ADD2|MUL2|SET2|SETP2|MNMX2)\w*",
    "special": r"MUFU",
    "convert": r"[FI]2[FIP]\w*|FRND|I2FP|F2FP",
    "global load": r"LDG|LD|LDGSTS|UBLKCP|UTMALDG",
    "global store": r"STG|ST|UTMASTG",
    "shared": r"LDS|STS|LDSM|STSM",
    "local": r"LDL|STL",
    "constant": r"U?LDC\w*",
    "atomic": r"ATOM|ATOMG|ATOMS|RED|REDG|UATOMG|REDS|CCTL",
    "shuffle and vote": r"SHFL|VOTE|VOTEU|MATCH|U?REDUX|CREDUX",
    "barrier": r"BAR|BARRIER|MEMBAR|DEPBAR|ERRBAR|FENCE|SYNCS|WARPSYNC|ARRIVES|UCGABAR\w*|ACQBULK",
    "branch": r"BRA|BRX|JMP|BSSY|BSYNC|BREAK|CALL|RET|EXIT|NANOSLEEP|YIELD|KILL|BPT|BMOV|WARPSYNC",
    "integer": r"U?(IADD\w*|IMAD|ISETP|IMNMX|IABS|LEA|LOP3|PLOP3|SHF|SHL|SHR|SEL|PRMT|POPC|FLO|BREV|BMSK|SGXT|VIADD\w*|VIMNMX\w*|"
    r"VHMNMX|ISCADD|XMAD|LOP|IDP|IMUL|P2R|R2P|P2UR|VABSDIFF\w*)|VI\w+",
    "move": r"U?MOV\w*|S2R|S2UR|CS2R|R2UR|UR2R|NOP|R2B|B2R|MOVM|PLOP",
}
_CLASSES = {name: re.compile(pattern) for name, pattern in CLASSES.items()}
_INSTRUCTION = re.compile(r"^\s*/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9]*)((?:\.\w+)*)")
_RESOURCE = re.compile(r"(\w+):(\d+)")
_WIDTHS = {"32": 4, "64": 8, "128": 16, "U8": 1, "S8": 1, "U16": 2, "S16": 2}


@dataclass
class Kernel:
    """One kernel on one architecture.

    registers, stack (bytes a thread), shared (static bytes a block): as the compiler says
    spills        local loads and stores
    instructions  in all; `classes`: of each class (see CLASSES; "other" for the rest)
    widths        loads, stores of global and shared memory by bytes a thread: {"global load 16": 12, ...}
    opcodes       each instruction with its modifiers: {"LDG.E.128": 12, ...}
    """

    name: str
    mangled: str
    arch: str
    registers: int = 0
    stack: int = 0
    shared: int = 0
    instructions: int = 0
    classes: Counter[str] = field(default_factory=Counter)
    widths: Counter[str] = field(default_factory=Counter)
    opcodes: Counter[str] = field(default_factory=Counter)

    @property
    def spills(self) -> int:
        return self.classes["local"]


def find_cuobjdump() -> str | None:
    """The program, where it is: PATH, the CUDA toolkit, triton's package."""
    homes = [os.environ[name] for name in ("CUDA_HOME", "CUDA_PATH") if os.environ.get(name)] + ["/usr/local/cuda"]
    spec = importlib.util.find_spec("triton")
    packages = [Path(folder) / "backends/nvidia" for folder in (spec.submodule_search_locations or ())] if spec else []
    for name in ("cuobjdump", *(f"{home}/bin/cuobjdump" for home in (*homes, *packages))):
        if found := shutil.which(name):
            return found
    return None


def plain_name(mangled: str) -> str:
    """The last name of a mangled one: `_ZN3gcl11warp_kernelIfEE...` is warp_kernel."""
    rest, name = mangled.removeprefix("_ZN").removeprefix("_Z").lstrip("KVr"), mangled
    while (match := re.match(r"(\d+)", rest)) is not None:
        size, rest = int(match[1]), rest[match.end() :]
        name, rest = rest[:size], rest[size:]
    return name


def class_of(opcode: str) -> str:
    return next((name for name, pattern in _CLASSES.items() if pattern.fullmatch(opcode)), "other")


def width_of(suffixes: str) -> int:
    """Bytes a thread moves, by the suffixes of a load or store: 4 where none says otherwise."""
    return next((_WIDTHS[part] for part in suffixes.split(".") if part in _WIDTHS), 4)


def parse_resources(lines: Iterable[str]) -> dict[tuple[str, str], dict[str, int]]:
    """(architecture, mangled name) -> REG, STACK, SHARED, ... as `cuobjdump -res-usage` prints them."""
    found: dict[tuple[str, str], dict[str, int]] = {}
    arch = function = ""
    for line in lines:
        if line.startswith("arch = "):
            arch = line.removeprefix("arch = ").strip()
        elif match := re.match(r"\s*Function (\S+):", line):
            function = match[1]
        elif function and "REG:" in line:
            found[arch, function] = {name: int(value) for name, value in _RESOURCE.findall(line)}
            function = ""
    return found


def parse_code(lines: Iterable[str]) -> Iterator[Kernel]:
    """The kernels of `cuobjdump -sass`, each with its instructions counted."""
    arch, kernel = "", None
    for line in lines:
        if line.startswith("arch = "):
            arch = line.removeprefix("arch = ").strip()
        elif match := re.match(r"\s*Function : (\S+)", line):
            if kernel is not None:
                yield kernel
            kernel = Kernel(plain_name(match[1]), match[1], arch)
        elif kernel is not None and (match := _INSTRUCTION.match(line)):
            opcode, suffixes = match.groups()
            kind = class_of(opcode)
            kernel.instructions += 1
            kernel.opcodes[opcode + suffixes] += 1
            kernel.classes[kind] += 1
            if kind in ("global load", "global store"):
                kernel.widths[f"{kind} {width_of(suffixes)}"] += 1
            elif kind == "shared":
                kernel.widths[f"shared {'load' if opcode.startswith('LD') else 'store'} {width_of(suffixes)}"] += 1
    if kernel is not None:
        yield kernel


def read_module(module: Path, arch: str | None = None, program: str | None = None) -> list[Kernel]:
    """Every kernel of a built module, for one architecture ("sm_90") or all that are in it.

    Errors: FileNotFoundError where there is no cuobjdump or no module; RuntimeError where it cannot read the module, or the
    module has no code for that architecture.
    """
    program = program or find_cuobjdump()
    if program is None:
        raise FileNotFoundError("cuobjdump was not found: it comes with the CUDA toolkit and with the triton package")
    if not module.is_file():
        raise FileNotFoundError(f"no module {module}: build the package first (make build)")
    chosen = ["-arch", arch] if arch else []
    usage = subprocess.run([program, "-res-usage", *chosen, str(module)], capture_output=True, text=True, check=False)
    if usage.returncode != 0:
        raise RuntimeError(f"{program} cannot read {module}: {(usage.stderr or usage.stdout).strip()[:500]}")
    resources = parse_resources((usage.stdout + usage.stderr).splitlines())
    with subprocess.Popen([program, "-sass", *chosen, str(module)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        kernels = list(parse_code(process.stdout))
    if process.returncode != 0 or not kernels:
        raise RuntimeError(f"{module} has no machine code{f' for {arch}' if arch else ''} that {program} can show")
    for kernel in kernels:
        used = resources.get((kernel.arch, kernel.mangled), {})
        kernel.registers, kernel.stack, kernel.shared = (used.get(name, 0) for name in ("REG", "STACK", "SHARED"))
    return kernels


def as_dict(kernel: Kernel) -> dict:
    """For JSON, without the single instructions."""
    counts = {"classes": dict(kernel.classes), "widths": dict(kernel.widths), "spills": kernel.spills}
    return {name: value for name, value in asdict(kernel).items() if name != "opcodes"} | counts


def table(kernels: Sequence[Kernel]) -> str:
    """The kernels for people, the longest first."""
    shown = ("fp32", "integer", "global load", "shared", "shuffle and vote", "branch", "tensor")
    head = f"{'arch':8}{'regs':>5}{'stack':>6}{'spills':>7}{'shared':>8}{'instr.':>8}" + "".join(
        f"{name[:10]:>11}" for name in shown
    )
    lines = [head + "  kernel"]
    for kernel in sorted(kernels, key=lambda k: (k.arch, k.name, -k.instructions)):
        counts = "".join(f"{kernel.classes[name]:>11}" for name in shown)
        sizes = f"{kernel.registers:>5}{kernel.stack:>6}{kernel.spills:>7}{kernel.shared:>8}{kernel.instructions:>8}"
        arguments = kernel.mangled.partition(kernel.name)[2]
        lines.append(f"{kernel.arch:8}{sizes}{counts}  {kernel.name} {arguments[:24]}")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("module", type=Path, nargs="?", help="default: the checkout's gcl_fast/_C*.so")
    parser.add_argument("--arch", help="sm_90 and so on; default: all that are built")
    parser.add_argument("--kernel", default="", help="only kernels whose name holds this")
    parser.add_argument("--json", type=Path, help="write the counts here too")
    options = parser.parse_args(argv)
    try:
        module = options.module or next((ROOT / "gcl_fast").glob("_C*.so"), ROOT / "gcl_fast/_C.so")
        kernels = [k for k in read_module(module, options.arch) if options.kernel in k.name]
    except (FileNotFoundError, RuntimeError) as error:
        print(f"machine_code: {error}", file=sys.stderr)
        return 1
    print(table(kernels))
    if options.json:
        options.json.write_text(json.dumps([as_dict(kernel) for kernel in kernels], indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

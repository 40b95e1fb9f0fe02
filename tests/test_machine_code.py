"""The machine code of the built module: no spills, wide loads and native atomics where meant."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from tests.machine_code import SHAPES, Shape, Usage, instructions, missing, parse_instructions, parse_usages, usages

needs_machine_code = pytest.mark.skipif(bool(missing()), reason=missing() or "it is here")
MEND = "mend the table of tests/machine_code.py if that is meant"


def in_local_memory(found: tuple[Usage, ...]) -> list[str]:
    return [
        f"{u.architecture} {u.kernel}: {u.stack} bytes of stack, {u.local} of local memory" for u in found if u.stack or u.local
    ]


def too_few(found: dict[tuple[str, str], Counter[str]], shape: Shape) -> list[str]:
    short = []
    for (architecture, kernel), counts in found.items():
        number = sum(n for name, n in counts.items() if re.match(shape.instruction, name))
        new_enough = int(re.sub(r"\D", "", architecture)) >= shape.since
        if shape.kernel in kernel and new_enough and number < shape.least:
            short.append(f"{architecture} {kernel}: {number} instructions like {shape.instruction}, of {shape.least}")
    return short


@needs_machine_code
def test_no_kernel_spills() -> None:
    found = usages()
    assert len({u.architecture for u in found}) >= 1 and len(found) > 100
    assert not in_local_memory(found)


@needs_machine_code
def test_main_kernels_have_the_instructions_that_they_are_meant_to() -> None:
    names = {u.kernel for u in usages()}
    main = {shape.kernel: [name for name in names if shape.kernel in name] for shape in SHAPES}
    gone = [part for part, kernels in main.items() if not kernels]
    assert not gone, MEND
    found = instructions(sorted({name for kernels in main.values() for name in kernels}))
    assert {architecture for architecture, _ in found} == {u.architecture for u in usages()}
    assert not [line for shape in SHAPES for line in too_few(found, shape)], MEND


# That worse code is seen.

USAGE = """
arch = sm_90
 Function _ZN3gcl14overlap_kernelIfLb1EEEvNS_13OverlapParamsIT_EE:
  REG:40 STACK:{stack} SHARED:2048 LOCAL:{local} CONSTANT[0]:440 TEXTURE:0 SURFACE:0 SAMPLER:0
"""
CODE = """
arch = sm_90
\t\tFunction : _ZN3gcl17bank_sweep_kernelIffLi16ELi2EEEvNS_9NceParamsIT_EE
        /*0000*/                   LDC R1, c[0x0][0x28] ;                 /* 0x00000a00ff017b82 */
        /*0010*/              @!P0 LDG.E.128.CONSTANT R4, desc[UR4][R2.64] ;  /* 0x0000000402048981 */
        /*0020*/                   LDG.E R4, desc[UR4][R2.64] ;  /* 0x0000000402048981 */
"""


@pytest.mark.parametrize(("stack", "local", "faults"), [(0, 0, 0), (8, 0, 1), (0, 16, 1)])
def test_a_spill_is_seen(stack: int, local: int, faults: int) -> None:
    assert len(in_local_memory(parse_usages(USAGE.format(stack=stack, local=local)))) == faults


def test_a_narrow_load_is_seen() -> None:
    found = parse_instructions(CODE)
    assert not too_few(found, Shape("bank_sweep_kernelIff", r"LDG\S*\.128", 1))
    assert too_few(found, Shape("bank_sweep_kernelIff", r"LDG\S*\.128", 2))
    assert too_few(found, Shape("bank_sweep_kernelIff", r"HMMA", 1))

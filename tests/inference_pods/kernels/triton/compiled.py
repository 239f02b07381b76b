"""Compiles every kernel for a GPU that need not be there, and says what the machine code lacks.

Knows no kernel: they are listed in compile_cases.py.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from dataclasses import dataclass, field

import triton
from triton import knobs
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

SHARED_LIMIT_BYTES = {80: 163 * 1024, 90: 227 * 1024}  # per block, CUDA C++ programming guide, compute capabilities
MMA = re.compile(r"\b(?:mma\.sync|wgmma\.mma_async)")


@dataclass(frozen=True, slots=True)
class Compiled:
    """What the compiler made of a kernel: counts from the PTX, figures from the cubin's resource usage."""

    name: str
    arch: int
    cubin_bytes: int
    mma: int
    shared_bytes: int
    registers: int
    local_bytes: int  # stack and spills, per thread


@dataclass(frozen=True, slots=True)
class Case:
    """One kernel, the types of its arguments and the constants it is compiled with."""

    name: str
    kernel: triton.JITFunction
    signature: dict[str, str]
    constants: dict[str, object]
    uses_mma: bool
    options: dict[str, object] = field(default_factory=dict)


def build_source(case: Case) -> ASTSource:
    """Arguments in the kernel's own order; pointers and sizes divisible by 16, as the allocator and the shapes give."""
    names = case.kernel.arg_names
    types = {n: "constexpr" if n in case.constants else case.signature[n] for n in names}
    aligned = {(i,): [["tt.divisibility", 16]] for i, n in enumerate(names) if types[n].startswith("*") or n in "NK"}
    return ASTSource(case.kernel, types, dict(case.constants), aligned)


def resource_usage(cubin: bytes) -> tuple[int, int]:
    """Registers and local bytes per thread, read from the cubin with the cuobjdump that comes with Triton."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        command = [knobs.nvidia.cuobjdump.path, "--dump-resource-usage", file.name]
        text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found = re.search(r"REG:(\d+) STACK:(\d+) .*?LOCAL:(\d+)", text)
    if found is None:
        raise RuntimeError(f"cuobjdump's resource usage cannot be read: {text!r}")
    return int(found[1]), int(found[2]) + int(found[3])


def compile_case(case: Case, arch: int) -> Compiled:
    """Compiles for compute capability `arch` (80, 90)."""
    built = triton.compile(build_source(case), target=GPUTarget("cuda", arch, 32), options=case.options)
    cubin = built.asm["cubin"]
    registers, local = resource_usage(cubin)
    mma = len(MMA.findall(built.asm["ptx"]))
    return Compiled(case.name, arch, len(cubin), mma, built.metadata.shared, registers, local)


def find_faults(built: Compiled, uses_mma: bool) -> list[str]:
    """Why this kernel must not ship; empty when all is well."""
    faults = []
    if not built.cubin_bytes:
        faults.append("no cubin")
    if uses_mma and not built.mma:
        faults.append("no mma instruction: the matmul runs on the ordinary cores")
    if built.shared_bytes > SHARED_LIMIT_BYTES[built.arch]:
        faults.append(f"{built.shared_bytes} B of shared memory, sm_{built.arch} has {SHARED_LIMIT_BYTES[built.arch]}")
    if built.local_bytes:
        faults.append(f"{built.local_bytes} B of local memory per thread: registers spill")
    return faults

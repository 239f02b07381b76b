"""Every kernel compiles for sm_80 and sm_90 without a GPU, keeps its mma, fits shared memory and spills nothing."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from inference_pods.kernels.build import default_cache

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[4]
SCRIPT = Path(__file__).with_name("compile_cases.py")
ARCHITECTURES = (80, 90)


@pytest.fixture(scope="session")
def cache():
    """Machine code of earlier runs, found by Triton's hash of compiler, kernel and options: what changed compiles.

    Beside the CPU kernels' cache and not in the checkout, of which there are several: 66 kernels take a minute.
    """
    return default_cache().with_name("triton-tests")


def compile_all(arch, which, cache):
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment |= {"PYTHONPATH": str(ROOT), "TRITON_CACHE_DIR": str(cache)}
    command = [sys.executable, str(SCRIPT), str(arch), which]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.timeout(250)
@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_no_shipped_kernel_has_a_fault(arch, cache):
    built = compile_all(arch, "shipped", cache)
    assert len(built) == 33
    assert {b["name"]: b["faults"] for b in built if b["faults"]} == {}


@pytest.mark.timeout(250)
def test_the_check_reports_a_missing_mma_spills_and_too_much_shared_memory(cache):
    faults = {b["name"]: " ".join(b["faults"]) for b in compile_all(80, "faulty", cache)}
    assert "no mma" in faults["no dot"]
    assert "registers spill" in faults["spills"]
    assert "shared memory" in faults["too large"]

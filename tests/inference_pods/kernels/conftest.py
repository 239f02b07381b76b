"""Kernel variants that this CPU can run; the first use on a machine compiles them."""

import pytest

from inference_pods.kernels.build import architecture_variants
from inference_pods.kernels.cpu import VARIANTS, detect_cpu
from inference_pods.kernels.library import load_library


@pytest.fixture(params=list(VARIANTS))
def variant(request):
    name = request.param
    if not VARIANTS[name] <= detect_cpu().flags or name not in architecture_variants():
        pytest.skip(f"this CPU ({detect_cpu().describe()}) cannot run the {name} kernels")
    load_library(name)
    return name

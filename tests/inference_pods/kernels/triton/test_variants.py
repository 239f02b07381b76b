"""Which versions of each kernel Triton would compile, by its own rules: none is left for a request to wait for.

A version is what the kernel's cache keys by: types, constants, options, and what Triton reads out of the other
arguments (a size of 1 or a multiple of 16). Launches are recorded interpreted; the rules are asked for a GPU's target.
"""

import numpy as np
import pytest
from triton.backends.compiler import GPUTarget
from triton.compiler import make_backend
from triton.runtime.jit import JITFunction, create_function_from_signature

from inference_pods.kernels.decoder import Chunk, DecoderLimits
from inference_pods.kernels.formats import BLOCK_TOKENS, Precision
from inference_pods.kernels.step_plans import Backend
from inference_pods.kernels.torch_decoder import TorchDecoder
from inference_pods.kernels.torch_target import Kernels
from inference_pods.kernels.triton import nested, norm_rope, paged_attention, rms_norm, sparse24, w4a16, w8a16
from tests.inference_pods.kernels import random_model
from tests.inference_pods.kernels.device_script import SHAPE

MODULES = (nested, norm_rope, paged_attention, rms_norm, sparse24, w4a16, w8a16)
BACKEND = make_backend(GPUTarget("cuda", 90, 32))
LIMITS = DecoderLimits(max_rows=100, max_outputs=40, max_positions=128, kv_blocks=80, threads=1)

pytestmark = pytest.mark.timeout(240)


class Recorded:
    """A kernel that notes the versions it is launched in instead of computing."""

    def __init__(self, kernel, versions):
        options = {name: value for name, value in kernel.kwargs.items() if name.startswith("do_not")}
        self.compiled = JITFunction(kernel.fn, **options)
        signature = self.compiled.signature
        self.bind = create_function_from_signature(signature, self.compiled.params, BACKEND)
        self.versions = versions

    def __getitem__(self, grid):
        def launch(*arguments, **constants):
            _, found, options = self.bind(*arguments, **constants)
            name = self.compiled.fn.__name__
            self.versions.add((name, repr(found), repr(sorted(options.items()))))

        return launch


@pytest.fixture
def versions(monkeypatch):
    """All versions that were launched. Nothing is computed: which kernel is launched depends on shapes alone."""
    found = set()
    for module in MODULES:
        name = f"{module.__name__.rsplit('.', 1)[1]}_kernel"
        monkeypatch.setattr(module, name, Recorded(getattr(module, name), found))
    return found


def build(precision, backend=Backend.EAGER, limits=LIMITS):
    decoder = TorchDecoder(SHAPE, limits, precision, kernels=Kernels.TRITON, backend=backend)
    return random_model.load_random_weights(decoder, shape=SHAPE)


def table(sequence, count=8):
    return [(sequence * 3 + block) % LIMITS.kv_blocks for block in range(count)]


def prompt(length, start=0, sequence=0, scores=1, level=0):
    return Chunk([1] * length, start, table(sequence), scores, level)


def decoding(sequence, position, level=0):
    return Chunk([1], position, table(sequence), 1, level)


def usual_steps(levels):
    """Prompts of every length, alone, beside decoding sequences, and unfinished; decoding at every batch size."""
    random = np.random.default_rng(3)
    for level in range(levels):
        for length in (2, 3, 15, 16, 17, 31, 32, 33, 48, 63, 64, 65, 80, 96, 97, 100):
            yield [prompt(length, level=level)]
            yield [prompt(length, scores=0, level=level)]
            beside = int(random.integers(1, 39))
            if length + beside <= LIMITS.max_rows:
                position = int(random.integers(1, 127))
                yield [prompt(length, level=level)] + [decoding(1 + one, position, level) for one in range(beside)]
        for size in range(1, LIMITS.max_outputs + 1):
            yield [decoding(one, int(random.integers(1, 128)), level) for one in range(size)]


@pytest.mark.slow
@pytest.mark.parametrize("precision", [Precision.INT8, Precision.INT4, Precision.NESTED, Precision.BF16])
def test_no_kernel_is_compiled_for_a_step_after_warming(versions, precision):
    decoder = build(precision)
    decoder.warm()
    warmed = set(versions)
    assert warmed
    for step in usual_steps(len(decoder.levels)):
        decoder.step(step)
    assert {name for name, *_ in versions - warmed} == set()


def test_a_matmul_has_one_version_per_tile_of_rows_and_shape_of_weights(versions):
    """Whether a step has one row, a multiple of 16 or another number makes no version of its own."""
    decoder = build(Precision.INT8)
    for step in usual_steps(1):
        decoder.step(step)
    matmuls = [found for name, found, _ in versions if name == "w8a16_kernel"]
    tiles = {16: 0, 32: 0, 64: 0}
    for found in matmuls:
        tiles[next(size for size in tiles if f"'constexpr', {size})" in found)] += 1
    assert len(set(tiles.values())) == 1, tiles
    assert {name for name, *_ in versions} == {
        "w8a16_kernel",
        "rms_norm_kernel",
        "norm_rope_kernel",
        "paged_attention_kernel",
    }
    assert sum(name == "paged_attention_kernel" for name, *_ in versions) == 1


@pytest.mark.parametrize(
    "limits",
    [
        DecoderLimits(max_rows=1, max_outputs=1, max_positions=1, kv_blocks=1, threads=1),
        DecoderLimits(max_rows=2, max_outputs=1, max_positions=64, kv_blocks=4, threads=1),
        DecoderLimits(max_rows=200, max_outputs=8, max_positions=20, kv_blocks=16, threads=1),
    ],
    ids=["one row", "two rows", "sequences shorter than a step"],
)
def test_warming_fits_any_limits(versions, limits):
    build(Precision.INT8, limits=limits).warm()
    assert versions


@pytest.mark.slow
def test_warming_leaves_the_cache_that_requests_read_as_it_was():
    """Computed, not recorded: what warming writes goes to the spare block."""
    limits = DecoderLimits(max_rows=20, max_outputs=2, max_positions=64, kv_blocks=3, threads=1)
    decoder = build(Precision.INT8, limits=limits)
    decoder.warm()
    assert decoder._attention._cache[:, :, : limits.kv_blocks].count_nonzero() == 0
    assert decoder._attention._cache[:, :, limits.kv_blocks].count_nonzero() > 0
    assert decoder._attention._cache.shape[4] == BLOCK_TOKENS

"""The Triton kernels on a real GPU: the checks of the interpreted suite, and times beside torch's fp16 matmul."""

import importlib.util
import os

import pytest
import torch

HAS_TRITON = importlib.util.find_spec("triton") is not None
if not torch.cuda.is_available():
    pytest.skip("NO GPU: torch.cuda is not available, no kernel was run on a device", allow_module_level=True)
if not HAS_TRITON or os.environ.get("TRITON_INTERPRET") == "1":
    pytest.skip("triton is missing or TRITON_INTERPRET=1: no kernel was run on a device", allow_module_level=True)

import triton

from inference_pods.kernels.formats import Precision
from inference_pods.kernels.levels import default_levels
from inference_pods.kernels.step_plans import Backend
from inference_pods.kernels.torch_target import Kernels
from inference_pods.kernels.triton.linear import Format, linear, move, pack_linear
from inference_pods.kernels.triton.nested import NestedLevel
from inference_pods.kernels.triton.norm_rope import norm_rope, rotation_table
from inference_pods.kernels.triton.paged_attention import paged_attention, reference_paged_attention
from inference_pods.kernels.triton.rms_norm import reference_rms_norm, rms_norm
from inference_pods.kernels.triton.spread import choose_spread
from inference_pods.kernels.triton.w8a16 import TILES as W8A16_TILES
from inference_pods.kernels.triton.w8a16 import pack_int8, reference_w8a16, w8a16
from tests.inference_pods.kernels import device_script
from tests.inference_pods.kernels.triton.test_matmul import CASES, random_operands

DTYPES = (torch.float16, torch.bfloat16)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize(
    ("rows", "outputs", "columns"), [(1, 100, 192), (17, 65, 64), (67, 192, 576), (130, 1536, 576)]
)
def test_a_matmul_equals_the_reference(name, dtype, rows, outputs, columns):
    pack, reference, kernel = CASES[name]
    x, weights = random_operands(rows, outputs, columns, dtype, seed=0)
    matrix = pack(weights)
    got, want = kernel(x.cuda(), move(matrix, "cuda")).cpu(), reference(x, matrix)
    unit = torch.finfo(dtype).eps
    torch.testing.assert_close(got.float(), want.float(), rtol=unit, atol=unit)


@pytest.mark.parametrize("per_row", [False, True])
def test_the_head_gives_scores_in_fp32(per_row):
    x, weights = random_operands(3, 700, 576, torch.bfloat16, seed=6)
    matrix = pack_int8(weights, per_row)
    scores = w8a16(x.cuda(), move(matrix, "cuda"), torch.float32).cpu()
    torch.testing.assert_close(scores, reference_w8a16(x, matrix, torch.float32), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("name", CASES)
def test_split_sums_are_the_same_in_every_run(name):
    pack, _, kernel = CASES[name]
    x, weights = random_operands(3, 4096, 4096, torch.bfloat16, seed=1)
    x, matrix = x.cuda(), pack(weights.cuda())
    assert choose_spread(W8A16_TILES, 3, 4096, 128, x.device).splits > 1
    first = kernel(x, matrix)
    assert all(torch.equal(first, kernel(x, matrix)) for _ in range(20))
    assert matrix.counters.count_nonzero() == 0


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_attention_equals_the_reference(dtype):
    generator = torch.Generator().manual_seed(0)
    lengths = torch.tensor([1, 16, 65, 700], dtype=torch.int32)
    tables = torch.randperm(4 * 44, generator=generator).reshape(4, 44).int()
    q = torch.randn(4, 9, 64, generator=generator).to(dtype)
    keys, values = (torch.randn(4 * 44, 3, 16, 64, generator=generator).to(dtype) for _ in range(2))
    case = (q, keys, values, tables, lengths)
    got = paged_attention(*(t.cuda() for t in case)).cpu()
    unit = 2 * torch.finfo(dtype).eps
    torch.testing.assert_close(got.float(), reference_paged_attention(*case).float(), rtol=unit, atol=unit)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("interleaved", [False, True])
def test_norm_and_rotation_equal_the_reference(dtype, interleaved):
    generator = torch.Generator().manual_seed(0)
    x, residual = (torch.randn(5, 576, generator=generator).to(dtype) for _ in range(2))
    gain = torch.rand(576, generator=generator) + 0.5
    unit = torch.finfo(dtype).eps
    normed = rms_norm(x.cuda(), residual.cuda(), gain.cuda(), 1e-5)
    for got, want in zip(normed, reference_rms_norm(x, residual, gain, 1e-5), strict=True):
        torch.testing.assert_close(got.cpu().float(), want.float(), rtol=2 * unit, atol=unit)
    q, k = (torch.randn(5, n, 64, generator=generator).to(dtype) for n in (9, 3))
    rest = (torch.tensor([0, 1, 63, 700, 8191], dtype=torch.int32), rotation_table(8192, 64, 1e5))
    rotated = norm_rope(q.cuda(), k.cuda(), *(t.cuda() for t in rest), interleaved=interleaved)
    for got, want in zip(rotated, norm_rope(q, k, *rest, interleaved=interleaved), strict=True):
        torch.testing.assert_close(got.cpu().float(), want.float(), rtol=2 * unit, atol=unit)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("backend", [Backend.EAGER, Backend.CUDA_GRAPH], ids=str)
@pytest.mark.parametrize("precision", list(device_script.EXPECTED_PATHS))
def test_a_decoder_scores_as_plain_torch_on_the_cpu_does(precision, backend):
    """Through every kernel, at every level, step by step and with captured decoding steps."""
    levels = tuple(range(len(default_levels(precision)))) * 4
    decoder = device_script.build(precision, Kernels.AUTO, device="cuda", backend=backend)
    plain = device_script.build(precision, Kernels.TORCH)
    decoder.warm()
    assert decoder.paths == device_script.EXPECTED_PATHS[precision]
    assert decoder.variant == "torch cuda with triton"
    device_script.compare(decoder, plain, device_script.script(levels=levels[:4]))
    assert device_script.generate(decoder, 5) == device_script.generate(plain, 5)
    assert (decoder.plans.counts.hits > 0) == (backend is Backend.CUDA_GRAPH)


@pytest.mark.timeout(300)
def test_kernels_and_compiled_steps_together_score_as_plain_torch_does():
    decoder = device_script.build(Precision.INT4, Kernels.AUTO, device="cuda", backend=Backend.COMPILE)
    device_script.compare(decoder, device_script.build(Precision.INT4, Kernels.TORCH), device_script.script())


@pytest.mark.timeout(300)
@pytest.mark.parametrize("rows", [1, 16, 64])
def test_times_are_reported_beside_torch(rows):
    """Prints medians for a 4096 x 4096 matrix; judges nothing: a time is a report, not a check."""
    x = torch.randn(rows, 4096, device="cuda", dtype=torch.float16)
    weights = torch.randn(4096, 4096, device="cuda")
    half = weights.half()
    base = triton.testing.do_bench(lambda: x @ half.T, return_mode="median")
    print(f"\n{torch.cuda.get_device_name()}, {rows} rows: torch fp16 {base * 1e3:.1f} us")
    for kind in Format:
        matrix = pack_linear(weights, kind)
        for level in list(NestedLevel) if kind == Format.NESTED else [NestedLevel.INT8]:
            median = triton.testing.do_bench(lambda m=matrix, n=level: linear(x, m, n), return_mode="median")
            print(f"  {kind} level {level.name}: {median * 1e3:.1f} us, {base / median:.2f}x")

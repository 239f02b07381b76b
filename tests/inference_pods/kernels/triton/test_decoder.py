"""The torch decoder through Triton's kernels, interpreted, against the same decoder in plain torch.

The same script runs on a GPU in tests/device.
"""

import logging

import pytest
import torch

from inference_pods.kernels.decoder import DecoderShape
from inference_pods.kernels.formats import Precision
from inference_pods.kernels.shards import divide
from inference_pods.kernels.torch_linear import Cut, packs
from inference_pods.kernels.torch_target import Kernels, Target, choose_target
from tests.inference_pods.kernels import device_script
from tests.inference_pods.kernels.device_script import EXPECTED_PATHS, build, compare, generate, script

pytestmark = pytest.mark.timeout(180)
CPU = torch.device("cpu")


@pytest.mark.slow
@pytest.mark.parametrize("precision", [Precision.INT8, Precision.BF16])
def test_a_decoder_through_the_kernels_scores_as_plain_torch_does(precision):
    compare(build(precision, Kernels.TRITON), build(precision, Kernels.TORCH), script())


@pytest.mark.slow
def test_with_finer_activations_scores_come_closer(monkeypatch):
    """So what differs is rounding: fp16 has three bits more, and the same bound in its units is eight times tighter."""
    monkeypatch.setattr("inference_pods.kernels.torch_target.COMPUTE", torch.float16)
    compare(build(Precision.INT4, Kernels.TRITON), build(Precision.INT4, Kernels.TORCH), script(), torch.float16)


@pytest.mark.slow
def test_nested_levels_share_planes_and_score_as_plain_torch_does(monkeypatch):
    """Every kernel is really launched: a wrapper that quietly ran its reference would pass every comparison."""
    launched = device_script.count_launches(monkeypatch)
    kernels, plain = build(Precision.NESTED, Kernels.TRITON), build(Precision.NESTED, Kernels.TORCH)
    compare(kernels, plain, script(levels=(0, 1, 1, 0)))
    assert set(launched) == {"nested", "w8a16", "rms_norm", "norm_rope", "paged_attention"}
    assert kernels.weight_bytes < plain.weight_bytes / 4  # each once, in tiles that this model does not fill


@pytest.mark.slow
def test_a_grid_of_64_weights_goes_through_the_int4_kernel():
    compare(build(Precision.INT4, Kernels.TRITON, span=64), build(Precision.INT4, Kernels.TORCH, span=64), script())


@pytest.mark.parametrize(
    ("kept", "columns", "span", "expected"),
    [
        (range(576), 576, 128, True),  # the last run of 128 is short
        (range(288), 576, 32, True),
        (range(288), 576, 128, False),  # cuts a grid in two
        (range(256, 576), 576, 128, True),
        (range(72), 72, 32, False),
        (range(0), 576, 32, False),
    ],
)
def test_a_cut_is_packed_if_it_consists_of_whole_grids(kept, columns, span, expected):
    target = Target(CPU, torch.bfloat16, uses_triton=True, span=span)
    assert packs(Precision.INT4, Cut(kept, columns), target) is expected


@pytest.mark.slow
@pytest.mark.parametrize("precision", [Precision.INT8, Precision.INT4])
def test_greedy_tokens_are_those_of_plain_torch(precision):
    assert generate(build(precision, Kernels.TRITON), 5) == generate(build(precision, Kernels.TORCH), 5)


@pytest.mark.parametrize("precision", list(EXPECTED_PATHS))
def test_the_decoder_says_which_kernels_compute(precision):
    decoder = build(precision, Kernels.TRITON)
    assert decoder.paths == EXPECTED_PATHS[precision]
    assert decoder.variant == "torch with triton"


@pytest.mark.slow
def test_what_no_kernel_knows_runs_in_torch_and_is_logged(caplog):
    """Heads of 24 are no power of two, and 3 of them make rows of 72 columns, no whole groups."""
    shape = DecoderShape(1, 64, 96, 3, 1, 24, 67, 1e-5, 10000.0)
    kernels = build(Precision.INT4, Kernels.TRITON, shape)
    with caplog.at_level(logging.WARNING):
        kernels.warm()
    slow = {"o", "rotation", "decode_attention"}
    assert {operation for operation, path in kernels.paths.items() if path == "torch"} == slow | {"prompt_attention"}
    assert {message.split()[0] for message in caplog.messages} == slow
    compare(kernels, build(Precision.INT4, Kernels.TORCH, shape), script(shape))


def test_fp32_weights_stay_in_plain_torch():
    assert choose_target(CPU, Precision.FP32, Kernels.TRITON) == Target(CPU, torch.float32, uses_triton=False)


def test_a_cpu_gets_plain_torch_unless_kernels_are_asked_for():
    assert not choose_target(CPU, Precision.INT4).uses_triton
    assert choose_target(CPU, Precision.INT4, Kernels.TRITON).uses_triton


def test_kernels_on_a_cpu_that_are_not_interpreted_are_refused(monkeypatch):
    monkeypatch.setattr("inference_pods.kernels.triton.dispatch.INTERPRETED", False)
    with pytest.raises(ValueError, match="cpu is no GPU"):
        choose_target(CPU, Precision.INT4, Kernels.TRITON)


def test_a_gpu_without_triton_gets_plain_torch_with_a_warning(monkeypatch, caplog):
    monkeypatch.setattr("inference_pods.kernels.torch_target.find_spec", lambda name: None)
    assert not choose_target(torch.device("cuda"), Precision.INT4).uses_triton
    assert "Triton is not installed" in caplog.text


def test_an_old_gpu_gets_plain_torch_with_a_warning(monkeypatch, caplog):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    assert not choose_target(torch.device("cuda"), Precision.INT4).uses_triton
    assert "(7, 5) is below" in caplog.text


def test_a_gpu_with_triton_gets_its_kernels(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    gpu = torch.device("cuda")
    assert choose_target(gpu, Precision.INT4) == Target(gpu, torch.bfloat16, uses_triton=True)
    assert choose_target(gpu, Precision.FP16) == Target(gpu, torch.float16, uses_triton=True)
    assert not choose_target(gpu, Precision.INT4, Kernels.TORCH).uses_triton


@pytest.mark.parametrize("precision", list(Precision))
@pytest.mark.parametrize("ranks", [1, 2])
def test_the_bytes_asked_of_a_device_are_those_that_the_kernels_weights_take(precision, ranks):
    for shard in divide(device_script.SHAPE, ranks):
        decoder = build(precision, Kernels.TRITON, shard=shard)
        assert decoder.needed_bytes == decoder.weight_bytes + decoder.kv_bytes

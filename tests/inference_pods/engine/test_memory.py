from dataclasses import replace

import pytest
import torch

from inference_pods.engine.distributed.placement import Device, Placement
from inference_pods.engine.errors import LoadError, LoadReason
from inference_pods.engine.memory import (
    MemoryBounds,
    check_memory,
    estimate_needed_bytes,
    read_container_limit,
    read_memory_bounds,
)
from inference_pods.kernels.build import KernelUnavailableError
from inference_pods.kernels.decoder import Chunk, DecoderLimits, DecoderShape
from inference_pods.kernels.formats import BLOCK_TOKENS, Precision
from inference_pods.kernels.shards import divide
from inference_pods.kernels.step_plans import Backend
from inference_pods.kernels.torch_decoder import TorchDecoder
from inference_pods.kernels.torch_target import Kernels
from tests.needed import need_module

MIB = 2**20
SHAPE = DecoderShape(30, 576, 1536, 9, 3, 64, 49152, 1e-5, 1e5)
LIMITS = DecoderLimits(max_rows=64, max_outputs=8, max_positions=2048, kv_blocks=256, threads=2)


def write_tree(root, files):
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)


@pytest.mark.parametrize(
    ("own", "files", "expected"),
    [
        ("0::/pod/app", {"memory.max": "max", "pod/memory.max": "900", "pod/app/memory.max": "max"}, 900),
        ("0::/", {"memory.max": "500"}, 500),
        ("0::/not/visible/from/here", {"memory.max": "500"}, 500),
        ("4:memory:/pod", {"memory/memory.limit_in_bytes": str(2**63 - 4096)}, None),
        ("4:memory:/pod", {"memory/pod/memory.limit_in_bytes": "700"}, 700),
        ("4:cpu,cpuacct:/pod", {"cpu,cpuacct/pod/memory.limit_in_bytes": "700"}, None),
        ("0::/", {"memory.max": "garbage"}, None),
        ("", {}, None),
    ],
    ids=[
        "the smallest of all folders above", "version 2", "only the mount is visible", "version 1 without a limit",
        "version 1", "another controller", "unreadable", "nothing there",
    ],
)  # fmt: skip
def test_the_container_limit_is_read_from_both_cgroup_versions(tmp_path, own, files, expected):
    write_tree(tmp_path / "cgroup", files)
    (tmp_path / "own").write_text(own)
    assert read_container_limit(tmp_path / "cgroup", tmp_path / "own") == expected


def test_bounds_come_from_the_process_and_the_machine(tmp_path):
    write_tree(
        tmp_path,
        {
            "proc/meminfo": "MemTotal: 9 kB\nMemAvailable:    2048 kB\n",
            "proc/self/status": "VmRSS: 9 kB\nRssAnon:\t 5 kB\n",
        },
    )
    assert read_memory_bounds(tmp_path / "no", tmp_path / "proc") == MemoryBounds(None, 5 * 1024, 2 * MIB)
    assert read_memory_bounds(tmp_path / "no", tmp_path / "none") == MemoryBounds(None, 0, None)


@pytest.mark.parametrize(
    ("bounds", "words"),
    [
        (
            MemoryBounds(139 * MIB, 40 * MIB, None),
            f"needs {140 * MIB} bytes.*limit is {139 * MIB}.*replica.memory to.*154Mi",
        ),
        (
            MemoryBounds(None, 40 * MIB, 99 * MIB),
            f"{100 * MIB} bytes.*{99 * MIB} left.*lower replica.kvCacheTokens .--kv",
        ),
    ],
    ids=["container", "machine"],
)
def test_what_does_not_fit_is_refused_with_bytes_limit_and_remedy(bounds, words):
    with pytest.raises(LoadError, match=words) as caught:
        check_memory(100 * MIB, bounds)
    assert caught.value.reason is LoadReason.OUT_OF_MEMORY


@pytest.mark.parametrize("bounds", [MemoryBounds(140 * MIB, 40 * MIB, 100 * MIB), MemoryBounds(None, 40 * MIB, None)])
def test_what_fits_exactly_is_accepted(bounds):
    check_memory(100 * MIB, bounds)


def test_the_estimate_covers_what_the_decoder_will_hold(load_runner):
    """134.5 M weights; int8 takes 1.06 bytes each."""
    needed = {
        precision: estimate_needed_bytes(SHAPE, LIMITS, precision) for precision in (Precision.FP32, Precision.INT8)
    }
    assert 538e6 < needed[Precision.FP32] < 900e6
    assert 143e6 < needed[Precision.INT8] < 420e6
    more = DecoderLimits(64, 8, 2048, 512, 2)
    assert estimate_needed_bytes(SHAPE, more, Precision.INT8) - needed[Precision.INT8] == 256 * 16 * 30 * 2 * 192 * 4


def test_without_compiled_kernels_everything_counts_as_fp32(monkeypatch):
    def unavailable(*_):
        raise KernelUnavailableError("none")

    monkeypatch.setattr("inference_pods.engine.memory.required_bytes", unavailable)
    kv_bytes = 256 * 16 * 30 * 2 * 192 * 4
    one = estimate_needed_bytes(SHAPE, LIMITS, Precision.INT4)
    blocks = 134_515_008 - 49153 * 576
    assert one == 134_515_008 * 4 + blocks * 4 * 2 // 5 + kv_bytes + (49152 * 576 + 8 * 49152) * 4 + 125 * MIB
    two = estimate_needed_bytes(SHAPE, LIMITS, Precision.NESTED, readings=2)
    assert two - one == blocks * 4 * 7 // 5, "blocks of both readings, one head"
    more, most = (
        estimate_needed_bytes(SHAPE, replace(LIMITS, max_rows=rows), Precision.INT4) for rows in (8192, 16_384)
    )
    assert most - more == 8192 * (4 * 1536 + 6 * 576 + 2 * 960) * 4, "rows of large steps; both attend to all positions"


WIDE = DecoderShape(1, 512, 3072, 8, 4, 64, 1000, 1e-5, 1e4)  # gate and up are the largest product
TALL = DecoderShape(1, 256, 512, 8, 4, 32, 30000, 1e-5, 1e4)  # the head is
SMALL_STEPS = DecoderLimits(max_rows=64, max_outputs=8, max_positions=256, kv_blocks=16, threads=1)
LONG_STEPS = DecoderLimits(max_rows=2048, max_outputs=8, max_positions=2048, kv_blocks=16, threads=1)


def measure(shape, limits, precision, placement):
    """Bytes of tensors in this process that all ranks together need, each at its peak; a device's are not counted."""
    from tests.inference_pods.kernels import random_model
    from tests.inference_pods.kernels.allocations import Allocations

    on_device = placement.device is Device.CUDA
    options = {"device": "meta", "kernels": Kernels.TRITON} if on_device else {"kernels": Kernels.TORCH}
    taken = 0
    for shard in divide(shape, placement.ranks):
        with Allocations() as allocations:
            collectives = OfOneRank() if placement.ranks > 1 else None
            decoder = TorchDecoder(shape, limits, precision, shard, collectives, **options)
            random_model.load_random_weights(decoder, shape=shape)
            if not on_device:
                run_full_step(decoder, limits)
        taken += allocations.peak
    return taken


class OfOneRank:
    """A rank of several that computes without the others: as much memory, other values."""

    def sum(self, x):
        return x

    def gather_columns(self, x, widths):
        parts = [torch.zeros(x.shape[0], width) for width in widths]
        return torch.cat(parts, 1)


def run_full_step(decoder, limits):
    """A prompt that takes all rows but those of the other sequences, which decode."""
    others = limits.max_outputs - 1
    prompt = min(limits.max_rows - others, 8 * BLOCK_TOKENS)
    chunks = [Chunk([1] * prompt, 0, list(range(8)), 1)]
    decoder.step(chunks + [Chunk([1], 0, [8 + i], 1) for i in range(others)])


def in_processes(ranks):
    return (125 + (ranks - 1) * 170) * MIB


@pytest.mark.slow
@pytest.mark.parametrize("shape", [WIDE, TALL], ids=["wide", "tall"])
@pytest.mark.parametrize("precision", list(Precision))
@pytest.mark.parametrize(
    "placement",
    [
        Placement(Device.CPU, 1, Backend.COMPILE),
        Placement(Device.CPU, 2),
        Placement(Device.CUDA, 1),
        Placement(Device.CUDA, 2),
    ],
    ids=["one CPU rank", "two CPU ranks", "one device", "two devices"],
)
def test_the_estimate_for_torch_covers_what_it_allocates_and_not_much_more(shape, precision, placement, monkeypatch):
    """Loading holds a fused product beside its parts, and packing for a device several copies of them.

    Nothing is computed on the device that "meta" stands for, so that Triton's kernels need not run here.
    """
    if placement.device is Device.CUDA:
        need_module("triton", "triton is not installed (Linux x86_64 only): memory of devices is not checked")
    monkeypatch.setattr("inference_pods.kernels.torch_target._find_obstacle", lambda device: None)
    measured = measure(shape, SMALL_STEPS, precision, placement)
    estimate = estimate_needed_bytes(shape, SMALL_STEPS, precision, placement) - in_processes(placement.ranks)
    assert measured <= estimate < 1.6 * measured


def test_long_steps_of_a_cpu_rank_are_counted():
    """What the rows of a prompt take in a layer outgrows what loading took."""
    placement = Placement(Device.CPU, 1, Backend.COMPILE)
    few, many = (estimate_needed_bytes(WIDE, one, Precision.FP32, placement) for one in (SMALL_STEPS, LONG_STEPS))
    assert many - few > (2048 - 64) * 2 * WIDE.ffn * 4


def test_the_masks_of_long_prompts_are_counted_on_every_rank():
    steps = [replace(LIMITS, max_rows=rows, max_positions=rows) for rows in (8192, 16_384)]
    less, more = (estimate_needed_bytes(SHAPE, limits, Precision.INT4, Placement(Device.CPU, 2)) for limits in steps)
    assert more - less > 2 * 5 * (16_384**2 - 8192**2), "five bytes for each row and position, on both ranks"

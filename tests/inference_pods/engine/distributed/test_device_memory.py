"""A device without enough memory, from torch's error to the refusal that the operator reads. torch's errors are raised
by hand: no GPU is needed."""

import io
import json

import pytest
import torch

from inference_pods.engine.distributed import group, worker
from inference_pods.engine.distributed.launch import RankSpec, listen_for_ranks
from inference_pods.engine.distributed.runner import build_alone, build_rank
from inference_pods.engine.errors import LoadError, LoadReason
from inference_pods.engine.gguf import GgufFile
from inference_pods.engine.model_runner import load_model
from inference_pods.kernels.decoder import DeviceMemoryError
from inference_pods.kernels.formats import Precision
from inference_pods.kernels.torch_decoder import TorchDecoder


@pytest.fixture
def full_device(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (700, 1000))


def fail(*_, **__):
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


def create_on_a_gpu(monkeypatch, part):
    """A factory of decoders that take themselves to be on a GPU and have no memory for a part of their loading."""

    def create(shape, limits, precision, levels):
        decoder = TorchDecoder(shape, limits, precision, levels=levels)
        monkeypatch.setattr(decoder, "_device", torch.device("cuda", 0))
        monkeypatch.setattr(decoder if part == "_warm" else decoder._weights, part, fail)
        return decoder

    return create


@pytest.mark.parametrize("part", ["load", "_warm"])
def test_a_gpu_without_memory_for_weights_or_plans_is_a_memory_refusal(tiny_model, full_device, monkeypatch, part):
    create = create_on_a_gpu(monkeypatch, part)
    with pytest.raises(LoadError) as caught:
        load_model(GgufFile(tiny_model.path), tiny_model.limits, Precision.FP32, 0, create=create)
    assert caught.value.reason is LoadReason.OUT_OF_MEMORY
    assert caught.value.reason.exit_code == 6
    for words in ("bytes of cuda:0's memory", "700 of its 1000 bytes", "replica.accelerators", "--kv-cache-tokens"):
        assert words in caught.value.message


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_device_too_full_for_its_driver_is_a_memory_refusal(tiny_model, full_device, monkeypatch, ranks):
    """CUDA takes some hundred MB for itself when a device is chosen, and nccl when ranks meet."""

    def choose(device):
        raise torch.AcceleratorError("CUDA error: out of memory")

    monkeypatch.setattr(torch.cuda, "set_device", choose)
    spec = RankSpec(0, ranks, 9, "cuda", tiny_model.source, 0, Precision.INT4, tiny_model.limits, ())
    build = build_alone if ranks == 1 else lambda spec, shape: build_rank(spec, shape, None)
    with pytest.raises(LoadError, match=r"cuda:0.*700 of its 1000 bytes.*replica.accelerators") as caught:
        load_model(
            GgufFile(tiny_model.path), tiny_model.limits, Precision.INT4, 0,
            create=lambda shape, limits, precision, levels: build(spec, shape),
        )  # fmt: skip
    assert caught.value.reason is LoadReason.OUT_OF_MEMORY


def test_ranks_without_memory_to_meet_on_their_devices_are_a_memory_refusal(full_device, monkeypatch):
    def meet(*_, **__):
        raise RuntimeError("ncclUnhandledCudaError: Call to CUDA function failed. Last error: 'out of memory'")

    monkeypatch.setattr(group.dist, "init_process_group", meet)
    with listen_for_ranks() as listener, pytest.raises(DeviceMemoryError, match=r"cuda:0.*700 of its 1000 bytes"):
        group.Group(0, 2, listener.getsockname()[1], torch.device("cuda", 0), listener)


def test_the_host_without_memory_for_plans_is_a_memory_refusal(tiny_model):
    class Greedy(TorchDecoder):
        def warm(self):
            raise MemoryError("5 bytes are missing")

    with pytest.raises(LoadError, match=r"5 bytes.*replica.memory") as caught:
        load_model(
            GgufFile(tiny_model.path), tiny_model.limits, Precision.FP32, 0,
            create=lambda shape, limits, precision, levels: Greedy(shape, limits, precision, levels=levels),
        )  # fmt: skip
    assert caught.value.reason is LoadReason.OUT_OF_MEMORY


def test_a_rank_that_lacks_memory_says_so_and_ends_with_the_codes_of_a_refusal(tiny_model, monkeypatch, capsys):
    spec = RankSpec(1, 2, 9, "cpu", tiny_model.source, 0, Precision.FP32, tiny_model.limits, ())

    def follow(_):
        raise DeviceMemoryError("9 bytes needed, 7 of its 8 bytes are free")

    monkeypatch.setattr(worker, "follow", follow)
    monkeypatch.setattr(worker.signal, "signal", lambda *_: None)
    monkeypatch.setattr(worker.threading.Thread, "start", lambda self: None)
    monkeypatch.setattr(worker.sys, "stdin", io.StringIO(spec.to_json() + "\n"))
    assert worker.main() == 6
    said = json.loads(capsys.readouterr().err.splitlines()[-1])
    assert said["reason"] == "OutOfMemory"
    assert "9 bytes needed" in said["message"]

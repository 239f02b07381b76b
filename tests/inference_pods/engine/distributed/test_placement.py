"""Which device and how many ranks a replica gets."""

import pytest

from inference_pods.engine.distributed.placement import Device, Placement, count_cuda_devices, place
from inference_pods.engine.errors import LoadError, LoadReason
from inference_pods.engine.settings import parse_settings
from inference_pods.kernels.step_plans import Backend


@pytest.mark.parametrize(
    ("device", "ranks", "visible", "has_torch", "expected"),
    [
        ("auto", 0, 0, True, Placement(Device.CPU, 1)),
        ("auto", 0, 2, True, Placement(Device.CUDA, 2, Backend.CUDA_GRAPH)),
        ("auto", 0, 2, False, Placement(Device.CPU, 1)),
        ("auto", 1, 2, True, Placement(Device.CUDA, 1, Backend.CUDA_GRAPH)),
        ("cpu", 0, 4, True, Placement(Device.CPU, 1)),
        ("cpu", 2, 0, True, Placement(Device.CPU, 2)),
        ("cuda", 0, 4, True, Placement(Device.CUDA, 4, Backend.CUDA_GRAPH)),
    ],
    ids=str,
)
def test_a_replica_takes_the_devices_it_was_given_and_one_rank_on_a_cpu(device, ranks, visible, has_torch, expected):
    assert place(device, ranks, visible, has_torch) == expected


@pytest.mark.parametrize(
    ("device", "ranks", "visible", "has_torch", "message"),
    [
        ("cuda", 0, 0, True, "no NVIDIA device"),
        ("cuda", 4, 2, True, "only 2 devices"),
        ("cpu", 2, 0, False, "needs torch"),
        ("cuda", 1, 1, False, "needs torch"),
    ],
)
def test_what_is_not_there_is_refused_by_the_name_of_its_flag(device, ranks, visible, has_torch, message):
    with pytest.raises(LoadError, match=message) as caught:
        place(device, ranks, visible, has_torch)
    assert caught.value.reason is LoadReason.UNSUPPORTED
    assert caught.value.message.startswith("--")


@pytest.mark.parametrize(
    ("asked", "device", "ranks", "backend"),
    [
        ("auto", "cuda", 1, Backend.CUDA_GRAPH),
        ("auto", "cpu", 1, Backend.EAGER),
        ("auto", "cpu", 2, Backend.EAGER),
        ("eager", "cuda", 2, Backend.EAGER),
        ("compile", "cuda", 1, Backend.COMPILE),
        ("compile", "cpu", 1, Backend.COMPILE),
    ],
)
def test_decoding_steps_are_captured_on_a_gpu_unless_told_otherwise(asked, device, ranks, backend, monkeypatch):
    monkeypatch.setattr("inference_pods.engine.distributed.placement.shutil.which", lambda name: "/usr/bin/g++")
    assert place(device, ranks, 2, True, asked).backend is backend


@pytest.mark.parametrize(
    ("asked", "device", "ranks", "has_torch", "message"),
    [
        ("cuda-graph", "cpu", 1, True, "--step-plans cuda-graph needs a GPU"),
        ("compile", "cpu", 2, True, "--step-plans compile: .* several ranks"),
        ("compile", "cpu", 1, True, "--step-plans compile needs a C"),
        ("compile", "cuda", 1, True, "--step-plans compile needs a C"),
    ],
)
def test_plans_that_cannot_be_made_here_are_refused(asked, device, ranks, has_torch, message, monkeypatch):
    monkeypatch.setattr("inference_pods.engine.distributed.placement.shutil.which", lambda name: None)
    with pytest.raises(LoadError, match=message) as caught:
        place(device, ranks, 2, has_torch, asked)
    assert caught.value.reason is LoadReason.UNSUPPORTED


def test_compiled_steps_need_torch(monkeypatch):
    monkeypatch.setattr("inference_pods.engine.distributed.placement.shutil.which", lambda name: "/usr/bin/g++")
    with pytest.raises(LoadError, match="--step-plans compile needs torch"):
        place("cpu", 1, 0, False, "compile")


def test_only_the_compiled_decoder_does_without_torch():
    assert not Placement(Device.CPU, 1).needs_torch
    assert Placement(Device.CPU, 2).needs_torch
    assert Placement(Device.CUDA, 1).needs_torch
    assert Placement(Device.CPU, 1, Backend.COMPILE).needs_torch


@pytest.mark.parametrize(("threads", "ranks", "each"), [(4, 2, 2), (3, 2, 1), (1, 4, 1), (2, 1, 2)])
def test_threads_are_divided_among_the_ranks(threads, ranks, each):
    assert Placement(Device.CPU, ranks).divide_threads(threads) == each


@pytest.mark.parametrize(
    ("environment", "expected"),
    [({}, 3), ({"CUDA_VISIBLE_DEVICES": "1"}, 1), ({"CUDA_VISIBLE_DEVICES": ""}, 0),
     ({"CUDA_VISIBLE_DEVICES": "0,-1,2"}, 1), ({"CUDA_VISIBLE_DEVICES": "0,1,2,3,4"}, 3)],
)  # fmt: skip
def test_devices_are_counted_by_their_files_and_cudas_own_choice(tmp_path, environment, expected):
    for name in ("nvidia0", "nvidia1", "nvidia10", "nvidiactl", "nvidia-uvm"):
        (tmp_path / name).touch()
    assert count_cuda_devices(tmp_path, environment) == expected


def test_the_flags_choose_by_themselves_unless_told():
    settings = parse_settings(["--model-source", "file:///m.gguf"])
    assert (settings.device, settings.tensor_parallel) == ("auto", 0)
    settings = parse_settings(["--model-source", "file:///m.gguf", "--device", "cpu", "--tensor-parallel", "2"])
    assert (settings.device, settings.tensor_parallel) == ("cpu", 2)

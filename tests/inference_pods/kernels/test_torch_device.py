"""What a CUDA device's errors mean. No GPU is needed: torch's errors are raised by hand, and its driver is a fake."""

import pytest
import torch

from inference_pods.kernels import torch_decoder, torch_device
from inference_pods.kernels.decoder import Chunk, DeviceLostError, DeviceMemoryError
from inference_pods.kernels.formats import Precision
from inference_pods.kernels.torch_decoder import TorchDecoder
from inference_pods.kernels.torch_device import check_room, ending_if_lost, refusing_for_memory
from tests.inference_pods.kernels import random_model

CUDA, CPU = torch.device("cuda", 0), torch.device("cpu")
STICKY = torch.AcceleratorError("CUDA error: an illegal memory access was encountered")
NO_DRIVER = torch.AcceleratorError("CUDA error: out of memory")
NO_MEMORY = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


class Driver:
    """After a sticky error every call fails with it; 700 of 1000 bytes are free."""

    def __init__(self):
        self.sticky = None
        self.probes = 0

    def synchronize(self, device):
        self.probes += 1
        if self.sticky:
            raise self.sticky


@pytest.fixture
def driver(monkeypatch):
    fake = Driver()
    monkeypatch.setattr(torch.cuda, "synchronize", fake.synchronize)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (700, 1000))
    return fake


@pytest.mark.parametrize(
    "error",
    [STICKY, RuntimeError("Triton Error [CUDA]: device-side assert triggered"), ValueError("whatever came of it")],
    ids=["torch", "triton", "what came of an earlier one"],
)
def test_an_error_after_which_the_device_fails_every_call_is_its_end(driver, error):
    driver.sticky = STICKY
    words = r"cuda:0.*illegal memory access.*new process"
    with pytest.raises(DeviceLostError, match=words) as caught, ending_if_lost(CUDA):
        raise error
    assert caught.value.__cause__ is error


@pytest.mark.parametrize(
    "error",
    [NO_MEMORY, torch.AcceleratorError("CUDA error: invalid configuration argument"), ValueError("a step too large")],
    ids=["no memory", "an argument of one call", "no error of the device"],
)
def test_an_error_that_the_device_gets_over_stays_what_it_is(driver, error):
    with pytest.raises(type(error)) as caught, ending_if_lost(CUDA):
        raise error
    assert caught.value is error
    assert driver.probes == 1


def test_a_cpu_has_no_sticky_errors(driver):
    driver.sticky = STICKY
    with pytest.raises(RuntimeError, match="odd") as caught, ending_if_lost(CPU):
        raise RuntimeError("odd")
    assert not isinstance(caught.value, DeviceLostError)
    assert driver.probes == 0


@pytest.mark.parametrize(
    "error",
    [
        NO_MEMORY,
        NO_DRIVER,
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("Triton Error [CUDA]: out of memory"),
        RuntimeError("ncclUnhandledCudaError: Call to CUDA function failed. Last error: Cuda failure 'out of memory'"),
    ],
    ids=["torch's allocator", "the driver", "cuBLAS", "triton", "nccl"],
)
def test_whoever_lacks_memory_on_a_device_the_refusal_names_bytes_and_limit(driver, error):
    words = r"500 bytes.*700 of its 1000 bytes"
    with pytest.raises(DeviceMemoryError, match=words) as caught, refusing_for_memory(CUDA, 500):
        raise error
    assert isinstance(caught.value, MemoryError)
    assert caught.value.__cause__ is error


def capture(error):
    """As torch does: the end of a recording that an error broke raises one of its own."""
    try:
        raise error
    finally:
        raise torch.AcceleratorError("CUDA error: operation failed due to a previous error during capture")


def test_missing_memory_is_seen_behind_the_error_of_the_capture_that_it_broke(driver):
    with pytest.raises(DeviceMemoryError, match=r"700 of its 1000 bytes"), refusing_for_memory(CUDA, 500):
        capture(NO_MEMORY)
    with pytest.raises(torch.AcceleratorError, match="during capture"), refusing_for_memory(CUDA, 500):
        capture(ValueError("an odd shape"))


def test_a_device_too_full_to_tell_how_full_it_is_is_refused_all_the_same(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", fail_with(NO_DRIVER))
    with pytest.raises(DeviceMemoryError, match=r"500 bytes.*cuda:0's memory.*does not tell") as caught:
        check_room(CUDA, 500)
    assert caught.value.__cause__ is NO_DRIVER


def test_a_device_that_fails_otherwise_when_asked_for_room_is_no_lack_of_memory(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", fail_with(STICKY))
    with pytest.raises(torch.AcceleratorError, match="illegal"):
        check_room(CUDA, 500)


@pytest.mark.parametrize("error", [STICKY, ValueError("CUDA error: no word of memory"), RuntimeError("out of luck")])
def test_other_errors_while_loading_are_no_lack_of_memory(driver, error):
    with pytest.raises(type(error)) as caught, refusing_for_memory(CUDA, 500):
        raise error
    assert caught.value is error


def test_what_cannot_fit_is_refused_before_anything_is_loaded_and_what_just_fits_is_not(driver):
    check_room(CUDA, 700)
    check_room(CPU, 10**15)
    with pytest.raises(DeviceMemoryError, match=r"701 bytes.*700 of its 1000 bytes"):
        check_room(CUDA, 701)


@pytest.fixture
def decoder(monkeypatch):
    """One that takes itself to be on a GPU."""
    built = TorchDecoder(random_model.SHAPE, random_model.LIMITS, Precision.INT8)
    monkeypatch.setattr(built, "_device", CUDA)
    return built


def fail_with(error):
    def fail(*_, **__):
        raise error

    return fail


def test_a_step_that_kills_the_device_ends_the_decoder(driver, decoder, monkeypatch):
    driver.sticky = STICKY
    monkeypatch.setattr(torch_decoder, "build_batch", fail_with(STICKY))
    with pytest.raises(DeviceLostError):
        decoder.step([Chunk([1], 0, [0], 1)])


def test_a_step_without_memory_fails_alone(driver, decoder, monkeypatch):
    monkeypatch.setattr(torch_decoder, "build_batch", fail_with(NO_MEMORY))
    with pytest.raises(torch.OutOfMemoryError):
        decoder.step([Chunk([1], 0, [0], 1)])


@pytest.mark.parametrize("part", ["load", "warm"])
def test_memory_that_lacks_while_loading_or_warming_is_refused(driver, decoder, monkeypatch, part):
    monkeypatch.setattr(decoder._weights, "load", fail_with(NO_MEMORY))
    monkeypatch.setattr(decoder, "_warm", fail_with(NO_MEMORY))
    with pytest.raises(DeviceMemoryError, match=f"{decoder.needed_bytes} bytes"):
        random_model.load_random_weights(decoder) if part == "load" else decoder.warm()


def test_a_decoder_asks_for_room_before_it_takes_any(monkeypatch):
    asked = []
    monkeypatch.setattr(torch_device, "check_room", fail_with(AssertionError("the decoder's own name is used")))
    monkeypatch.setattr(torch_decoder, "check_room", lambda device, needed: asked.append(needed))
    decoder = TorchDecoder(random_model.SHAPE, random_model.LIMITS, Precision.INT8)
    random_model.load_random_weights(decoder)
    assert asked == [decoder.needed_bytes] == [decoder.weight_bytes + decoder.kv_bytes]

"""An engine as its settings build it: what computes it, and what is refused before it is loaded."""

import logging
import re

import pytest

from inference_pods.engine.core import EngineCore
from inference_pods.engine.errors import LoadError, LoadReason
from inference_pods.engine.memory import MemoryBounds
from inference_pods.engine.metrics import EngineMetrics
from inference_pods.engine.service import Limits, Service
from inference_pods.engine.settings import parse_settings
from inference_pods.engine.startup import build_engine
from inference_pods.kernels.batch import Chunk
from inference_pods.kernels.build import KernelUnavailableError
from inference_pods.kernels.cpu import VARIANTS, Cpu, detect_cpu

pytestmark = pytest.mark.slow


def build(model_source, *arguments):
    settings = parse_settings(["--model-source", model_source, "--precision", "int4", *arguments])
    return build_engine(settings, lambda _events: None, lambda _result, _seconds: None, lambda _loss: None)


@pytest.fixture
def without_compiled_kernels(monkeypatch):
    def unavailable(*_arguments, **_named):
        raise KernelUnavailableError("no compiler")

    monkeypatch.setattr("inference_pods.kernels.decoder.load_library", unavailable)


def shown_kernels(engine):
    """Label of the metric that a service shows once the engine is attached."""
    metrics = EngineMetrics("smol", "nested", 8)
    Service(Limits(64, 4, 4, 60.0), metrics, "smol").attach(engine)
    lines = [line for line in metrics.render().decode().splitlines() if "kernels_info{" in line]
    assert len(lines) == 1
    return lines[0].split('kernels="')[1].split('"')[0]


@pytest.mark.parametrize("variant", ["generic", "best"])
async def test_log_info_and_metrics_name_the_compiled_kernels_that_run(
    model_source, model_path, monkeypatch, caplog, variant
):
    expected = detect_cpu().best_variant() if variant == "best" else variant
    monkeypatch.setenv("ADAPTIVE_KERNEL_VARIANT", expected)
    caplog.set_level(logging.INFO)
    engine = build(model_source)
    assert engine.description["kernels"] == shown_kernels(engine) == expected
    assert f"'kernels': '{expected}'" in caplog.text
    assert ("generic kernels" in caplog.text) is (expected == "generic")


def test_a_cpu_without_avx2_is_said_to_decode_slower(model_source, model_path, monkeypatch, caplog):
    old = Cpu("Old CPU", frozenset({"sse2"}))
    monkeypatch.setattr("inference_pods.kernels.library.detect_cpu", lambda: old)
    monkeypatch.setattr("inference_pods.engine.startup.detect_cpu", lambda: old)
    monkeypatch.delenv("ADAPTIVE_KERNEL_VARIANT", raising=False)
    build(model_source)
    assert "lacks AVX2, FMA or F16C (Old CPU" in caplog.text
    assert "decoding with the generic kernels, slower" in caplog.text


def test_generic_kernels_that_were_asked_for_are_not_blamed_on_the_cpu(model_source, model_path, monkeypatch, caplog):
    new = Cpu("New CPU", VARIANTS["avx512"])
    monkeypatch.setattr("inference_pods.engine.startup.detect_cpu", lambda: new)
    monkeypatch.setenv("ADAPTIVE_KERNEL_VARIANT", "generic")
    build(model_source)
    assert "ADAPTIVE_KERNEL_VARIANT asks for it, though this CPU can run avx512 (New CPU" in caplog.text
    assert "lacks" not in caplog.text


async def test_without_compiled_kernels_log_info_and_metrics_name_torch(
    model_source, model_path, without_compiled_kernels, caplog
):
    caplog.set_level(logging.INFO)
    engine = build(model_source, "--kv-cache-tokens", "64", "--max-total-tokens", "64")
    assert engine.description["kernels"] == shown_kernels(engine) == "torch"
    assert "'kernels': 'torch'" in caplog.text
    assert "no compiled kernels (no compiler): decoding in plain torch, several times slower" in caplog.text


@pytest.mark.parametrize("asked", [(), ("--kv-precision", "int8")], ids=["by default", "though int8 is asked for"])
def test_without_compiled_kernels_info_says_how_torch_stores_and_steps(
    model_source, model_path, without_compiled_kernels, asked
):
    said = build(model_source, "--kv-cache-tokens", "64", "--max-total-tokens", "64", *asked).description
    assert (said["kv_precision"], said["step_plans"]) == ("fp32", "eager")
    assert said["kv_cache_bytes"] == 64 * 30 * 2 * 3 * 64 * 4  # tokens, layers, keys and values, heads, width, bytes


def test_with_compiled_kernels_info_says_how_they_store_and_step(model_source, model_path):
    said = build(model_source, "--kv-cache-tokens", "64", "--max-total-tokens", "64").description
    assert (said["kv_precision"], said["step_plans"]) == ("fp16", "buffers")


@pytest.mark.parametrize(
    ("arguments", "at_least"),
    [
        ((), 750e6),
        (("--precision", "nested"), 1300e6),
        (("--device", "cpu", "--tensor-parallel", "2"), 900e6),
    ],
    ids=["torch instead of compiled kernels", "and two readings of the weights", "two ranks"],
)
def test_on_torch_too_a_container_that_is_too_small_is_refused_with_the_bytes_before_anything_is_loaded(
    model_source, model_path, without_compiled_kernels, monkeypatch, arguments, at_least
):
    def refuse(*_arguments, **_named):
        raise AssertionError("the model was loaded")

    monkeypatch.setattr("inference_pods.engine.startup.load_model", refuse)
    monkeypatch.setattr("inference_pods.engine.startup.read_memory_bounds", lambda: MemoryBounds(600 * 10**6, 0, None))
    with pytest.raises(LoadError, match=r"raise replica\.memory") as caught:
        build(model_source, *arguments)
    assert caught.value.reason is LoadReason.OUT_OF_MEMORY
    needed = int(re.search(r"needs (\d+) bytes", caught.value.message)[1])
    assert at_least < needed < 1.6 * at_least


@pytest.mark.parametrize(
    ("arguments", "precision"),
    [
        ([], "fp16"),
        (["--precision", "fp32"], "fp32"),
        (["--kv-precision", "int8"], "int8"),
        (["--kv-precision", "fp32"], "fp32"),
        (["--device", "cpu", "--tensor-parallel", "2"], "fp32"),
    ],
)
def test_keys_and_values_are_fp16_unless_the_weights_are_fp32_or_torch_computes(
    model_source, model_path, monkeypatch, arguments, precision
):
    monkeypatch.setattr("inference_pods.engine.startup.load_model", stop_with_limits)
    with pytest.raises(LimitsError) as caught:
        build(model_source, *arguments)
    assert caught.value.limits.kv_precision.value == precision


class LimitsError(Exception):
    def __init__(self, limits):
        self.limits = limits


def stop_with_limits(_file, limits, *_rest, **_named):
    raise LimitsError(limits)


def test_int8_keys_and_values_of_several_ranks_are_refused_with_field_and_remedy(model_source, model_path):
    with pytest.raises(LoadError, match=r"replica\.kvPrecision .*leave it out, or set .*tensorParallel: 1") as caught:
        build(model_source, "--device", "cpu", "--tensor-parallel", "2", "--kv-precision", "int8")
    assert caught.value.reason is LoadReason.UNSUPPORTED


def test_longer_steps_are_reserved_and_warm_before_the_first_of_them(model_source, model_path, monkeypatch):
    runners = []

    def core(runner, *rest):
        runners.append(runner)
        return EngineCore(runner, *rest)

    monkeypatch.setattr("inference_pods.engine.startup.EngineCore", core)
    engine = build(model_source, "--max-step-tokens", "512")
    prompt = Chunk(list(range(512)), 0, list(range(32)), scores=1)
    assert len(runners[0].step([prompt])) == 1
    assert (engine.plan_counts.hits, engine.plan_counts.misses) == (1, 0)

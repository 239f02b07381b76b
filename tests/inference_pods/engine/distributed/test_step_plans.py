"""Compiled decoding steps, from the engine's flag to its metrics: the tokens of eager steps, and a bounded number."""

import gc
import shutil
import threading
import weakref
from dataclasses import replace

import pytest
import torch

from inference_pods.engine.distributed.placement import detect_placement
from inference_pods.engine.gguf import GgufFile
from inference_pods.engine.metrics import EngineMetrics
from inference_pods.engine.model_runner import load_model
from inference_pods.engine.settings import parse_settings
from inference_pods.engine.startup import build_limits, choose_runner
from inference_pods.kernels.decoder import Chunk
from inference_pods.kernels.formats import Precision
from inference_pods.kernels.step_plans import PlanCache
from inference_pods.kernels.torch_decoder import TorchDecoder
from tests.needed import give_up

pytestmark = [pytest.mark.timeout(300), pytest.mark.slow]  # torch compiles for seconds per plan
SEED = 5


def load(model, *flags, precision=Precision.FP32, max_outputs=4, **reserved):
    """What the engine would load with these flags."""
    settings = parse_settings(
        ["--model-source", model.source, "--precision", precision, "--permutation-seed", str(SEED), *flags]
    )
    placement = detect_placement(settings.device, settings.tensor_parallel, settings.step_plans)
    create = choose_runner(settings, placement, lambda loss: None)
    limits = replace(model.limits, max_outputs=max_outputs, **reserved)
    return load_model(GgufFile(model.path), limits, settings.precision, SEED, create=create)


def greedy(runner, steps=6):
    """Tokens of two sequences that decode together, then of the first alone."""
    tables = [[3, 1], [2, 5]]
    tokens = [[score.best] for score in runner.step([Chunk([5, 9 + i], 0, t, 1) for i, t in enumerate(tables)])]
    for step in range(2, 2 + steps):
        together = tokens if step < 2 + steps // 2 else tokens[:1]
        chunks = [Chunk([own[-1]], step, table, 1) for own, table in zip(together, tables, strict=False)]
        for own, score in zip(together, runner.step(chunks), strict=True):
            own.append(score.best)
    return tokens


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")  # torch's compiler, when it is first imported
def test_the_flag_compiles_steps_before_the_engine_is_ready_and_they_give_the_eager_tokens(tiny_model):
    if shutil.which("g++") is None:
        give_up("no C++ compiler (install g++): torch.compile is not tested")
    loaded = load(tiny_model, "--step-plans", "compile", "--device", "cpu", max_outputs=2)
    counts = loaded.plan_counts
    assert isinstance(loaded.runner, TorchDecoder)
    assert len(loaded.runner.plans) == 2  # 1 and 2 rows
    assert (counts.hits, counts.misses) == (0, 0)
    assert counts.build_seconds > 0

    tokens = []
    with torch.compiler.set_stance("fail_on_recompile"):  # the engine steps in another thread than it loads in
        thread = threading.Thread(target=lambda: tokens.extend(greedy(loaded.runner)))
        thread.start()
        thread.join()
    assert tokens == greedy(load(tiny_model, "--device", "cpu").runner)
    assert (counts.hits, counts.misses) == (6, 0)

    metrics = EngineMetrics("m", "t", 1)
    metrics.follow_plans(counts)
    shown = metrics.render().decode()
    assert 'adaptive_engine_plan_hits_total{model="m",tier="t"} 6.0' in shown
    assert 'adaptive_engine_plan_misses_total{model="m",tier="t"} 0.0' in shown


def trace_only(monkeypatch):
    """torch.compile without code generation, in a tenth of the time; returns weak references to what it compiled."""
    compile_, graphs = torch.compile, []

    def keep(graph, _):
        graphs.append(weakref.ref(graph))
        return graph.forward

    monkeypatch.setattr(torch, "compile", lambda forward, **options: compile_(forward, backend=keep, **options))
    return graphs


def test_a_plan_that_the_cache_drops_is_freed(tiny_model, monkeypatch):
    graphs = trace_only(monkeypatch)
    decoder = load(tiny_model, "--device", "cpu", "--step-plans", "compile", max_outputs=1).runner
    decoder.plans.clear()
    graphs.clear()
    decoder.plans = PlanCache(decoder._build_plan, 4, 4, capacity=1)
    for rows in (1, 2, 4):
        decoder.step([Chunk([7], 0, [row], 0 if row else 1) for row in range(rows)])
    gc.collect()
    assert [graph() is not None for graph in graphs] == [False, False, True]
    assert (len(decoder.plans), decoder.plans.counts.evictions) == (1, 2)


def test_plans_that_the_cache_cannot_hold_are_told_in_log_and_metrics(tiny_model, monkeypatch, caplog):
    trace_only(monkeypatch)
    monkeypatch.setattr("inference_pods.kernels.torch_decoder.DEFAULT_CAPACITY", 4)
    flags = ("--step-plans", "compile", "--device", "cpu")
    with caplog.at_level("WARNING"):
        loaded = load(tiny_model, *flags, precision=Precision.NESTED)
    assert "2 of 6 step plans" in caplog.text, "batches of 1 at two levels"
    metrics = EngineMetrics("m", "t", 1)
    metrics.follow_plans(loaded.plan_counts)
    assert 'adaptive_engine_plan_unwarmed_total{model="m",tier="t"} 2.0' in metrics.render().decode()
    for count, misses in ((4, 0), (2, 0), (1, 1)):
        loaded.runner.step([Chunk([7], 0, [row], 1, level=1) for row in range(count)])
        assert loaded.plan_counts.misses == misses


def test_no_plan_is_built_for_batches_that_only_drafts_would_fill(tiny_model, monkeypatch):
    """Drafts are verified in chunks of several tokens, which have no plan; a batch decodes one token per sequence."""
    trace_only(monkeypatch)
    flags = ("--max-batch-size", "2", "--draft-level", "int4", "--draft-tokens", "3")
    backend = ("--step-plans", "compile", "--device", "cpu")
    settings = parse_settings(["--model-source", tiny_model.source, "--precision", "nested", *flags, *backend])
    limits = build_limits(settings, GgufFile(tiny_model.path), detect_placement("cpu", 0, "compile"))
    assert (limits.max_outputs, limits.max_sequences) == (8, 2)
    sequences = {"max_outputs": 8, "max_sequences": 2}
    decoder = load(tiny_model, *backend, precision=Precision.NESTED, **sequences).runner
    assert len(decoder.plans) == 4, "1 and 2 sequences at two levels"
    for count in (1, 2):
        decoder.step([Chunk([7], 0, [row], 1) for row in range(count)])
    assert decoder.plans.counts.misses == 0


def test_torch_compiles_more_plans_than_it_keeps_versions_of_one_function(tiny_model, monkeypatch):
    """torch gives up at the eighth version, so every plan must be a function of its own."""
    import torch._dynamo.config as config  # brings Triton, whose tests have to be collected first

    trace_only(monkeypatch)
    with config.patch(recompile_limit=2):
        loaded = load(tiny_model, "--step-plans", "compile", "--device", "cpu", precision=Precision.NESTED)
    assert len(loaded.runner.plans) == 6  # 1, 2 and 4 rows, at two levels
    assert loaded.runner.step([Chunk([7], 0, [1], 1, level=1)])
    assert loaded.plan_counts.misses == 0

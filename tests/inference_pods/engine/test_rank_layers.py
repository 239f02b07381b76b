"""The command that measures which layers of a model matter least."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass

import numpy as np
import pytest

from inference_pods.engine.rank_layers import LayerCost, cut_windows, levels_without_each_layer, main, measure_costs
from inference_pods.kernels.decoder import TokenScores
from inference_pods.kernels.formats import Precision
from inference_pods.kernels.levels import Level


@dataclass
class TwoTokenRunner:
    """A model of two tokens: level n says the first one with odds[n] to 1, at every position."""

    odds: tuple[float, ...]

    def step(self, chunks):
        scores = np.log(np.array([self.odds[chunks[0].level], 1.0], np.float32))
        return [TokenScores(0, float(np.logaddexp(*scores)), scores)] * chunks[0].scores


def test_a_layers_cost_is_the_divergence_from_the_whole_model_the_cheapest_first():
    costs = measure_costs(TwoTokenRunner((1.0, 3.0, 1.0, 9.0)), 3, [[0] * 8, [1] * 8])
    divergence = 0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(0.5 / 0.25)
    assert [cost.layer for cost in costs] == [1, 0, 2]
    assert costs[0] == LayerCost(1, 0.0, 0.0)
    assert costs[1].divergence == pytest.approx(divergence, rel=1e-5)
    assert costs[1].error == pytest.approx(0.0, abs=1e-9)


def test_one_window_has_no_standard_error():
    assert math.isnan(measure_costs(TwoTokenRunner((1.0, 3.0)), 1, [[0] * 8])[0].error)


def test_windows_are_spread_over_the_whole_text():
    assert cut_windows(list(range(100)), 3, 10) == [list(range(10)), list(range(45, 55)), list(range(90, 100))]
    assert cut_windows(list(range(10)), 1, 10) == [list(range(10))]


def test_a_text_that_is_too_short_names_what_is_needed():
    with pytest.raises(ValueError, match="2 windows of 10 tokens need a text of 20 tokens, this one has 19"):
        cut_windows(list(range(19)), 2, 10)


def test_what_is_measured_is_the_whole_model_and_the_model_without_each_layer():
    levels = levels_without_each_layer(Precision.BF16, 3)
    assert levels[0] == Level("whole", Precision.BF16)
    assert [level.skipped_layers for level in levels] == [(), (0,), (1,), (2,)]


TEXT = "The river rises in the hills north of the town and runs through meadows to the sea. " * 4


@pytest.fixture
def text_file(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text(TEXT)
    return str(path)


@pytest.mark.slow
def test_the_example_models_vital_layers_are_not_offered(capsys, model_source, model_path, text_file):
    given = ("--model-source", model_source, "--text", text_file, "--windows", "1", "--window-tokens", "48")
    assert main([*given, "--threads", "2"]) == 0
    said = capsys.readouterr().out.splitlines()
    order = json.loads(said[-1].removeprefix("skipOrder: "))
    assert len(order) == 8
    assert not {0, 1, 29} & set(order)
    assert len([line for line in said if "nats" in line]) == 30


def test_a_model_that_cannot_be_loaded_ends_with_its_reason(capsys, text_file):
    assert main(["--model-source", "file:///none.gguf", "--text", text_file]) == 3
    assert "no such file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flag", "value", "words"),
    [
        ("--text", "/none.txt", "No such file"),
        ("--windows", "99", "tokens need a text of"),
        ("--windows", "0", "--windows"),
    ],
)
def test_what_does_not_fit_is_refused_by_its_flag(capsys, model_source, model_path, text_file, flag, value, words):
    with pytest.raises(SystemExit):
        main(["--model-source", model_source, "--text", text_file, flag, value])
    assert words in capsys.readouterr().err

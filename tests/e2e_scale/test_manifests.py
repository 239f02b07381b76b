"""The objects of a scale run have the size that was asked for."""

from __future__ import annotations

import pytest

from adaptive_operator.api.v1alpha1 import AdaptiveModelSpec
from e2e.scale import manifests
from e2e.scale.cluster import build_scrape_config
from e2e.scale.settings import parse_settings

SIZES = ["--models", "20", "--pods", "200", "--nodes", "10"]
SETTINGS = parse_settings(SIZES)
PROGRAM = parse_settings([*SIZES, "--program"])


def test_each_model_is_valid_and_asks_for_its_share_of_the_pods() -> None:
    for index in range(SETTINGS.models):
        spec = AdaptiveModelSpec.model_validate(manifests.build_model(index, SETTINGS)["spec"])
        assert 1 + sum(tier.replicas.min for tier in spec.tiers) == 10


def test_an_edit_is_within_what_the_model_allows() -> None:
    (operation,) = manifests.build_change(1)
    tier = manifests.build_model(0, SETTINGS)["spec"]["tiers"][1]
    assert operation["path"] == "/spec/tiers/1/replicas/min"
    assert tier["replicas"]["min"] < operation["value"] <= tier["replicas"]["max"]


def test_nodes_have_accelerators_to_spare_and_room_for_all_pods() -> None:
    nodes = manifests.build_nodes(SETTINGS)
    allocatable = [node["status"]["allocatable"] for node in nodes]
    needed = 20 * (8 * 2 + 1)
    assert needed * 1.3 <= sum(int(a[manifests.RESOURCE]) for a in allocatable) < needed * 1.4
    assert sum(int(a["pods"]) for a in allocatable) > 200


def test_the_load_is_carried_at_first_and_needs_a_replica_after_the_step() -> None:
    carried = 8 * 5.0 + 8.0
    assert manifests.base_load(SETTINGS) < 0.7 * 8 * 5.0
    assert manifests.stepped_load(SETTINGS) > carried


def test_a_model_of_a_program_is_valid_in_no_accelerator_pool_and_leaves_the_choice_of_tiers() -> None:
    for index in range(PROGRAM.models):
        spec = AdaptiveModelSpec.model_validate(manifests.build_model(index, PROGRAM)["spec"])
        assert spec.accelerators.pool is None
        assert [tier.replicas.min for tier in spec.tiers] == [0, 1]


def test_accelerators_of_a_program_are_too_few_for_the_best_tiers_and_enough_for_the_cheap_ones() -> None:
    units, demand = manifests.accelerators(PROGRAM), PROGRAM.models * manifests.base_load(PROGRAM)
    planned = demand * 1.15 / 0.9  # with headroom, on derated replicas
    assert planned / 5.0 * 2 > units > planned / 8.0
    nodes = manifests.build_nodes(PROGRAM)
    assert sum(int(node["status"]["allocatable"][manifests.RESOURCE]) for node in nodes) == units


def test_after_the_step_of_a_program_some_need_more_than_their_even_part_and_all_together_have_it() -> None:
    units, step = manifests.accelerators(PROGRAM), manifests.stepped_load(PROGRAM)
    assert step > units / PROGRAM.models * 8.0
    calm = PROGRAM.models - PROGRAM.stepped
    assert PROGRAM.stepped * step + calm * manifests.base_load(PROGRAM) < 0.7 * units * 8.0
    cheap = manifests.build_model(0, PROGRAM)["spec"]["tiers"][1]
    assert cheap["replicas"]["max"] * 8.0 * 0.9 > step


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("m-0012", "m-0012"),
        ("m-0012-router", "m-0012"),
        ("m-0012-full-1a2b3c", "m-0012"),
        ("adaptive-llm-operator", ""),
        ("m-12-router", ""),
    ],
)
def test_an_objects_name_tells_its_model(name: str, model: str) -> None:
    assert manifests.model_of(name) == model


def test_names_are_different_and_none_begins_another_one() -> None:
    names = [manifests.model_name(i) for i in range(1500)]
    assert len(set(names)) == 1500
    assert {len(name) for name in names} == {6}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--models", "30", "--pods", "100"], "must be a multiple of --models 30"),
        (["--models", "30", "--pods", "60"], "at least 3 each"),
        (["--models", "0"], "must be above 0"),
        (["--models", "5", "--pods", "50", "--changes", "6"], "there are only 5 models"),
        (["--quiet-seconds", "nan"], "must be above 0"),
    ],
)
def test_sizes_that_make_no_sense_are_refused(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        parse_settings(arguments)
    assert message in capsys.readouterr().err


def test_prometheus_keeps_the_series_own_namespace_and_pod() -> None:
    config = build_scrape_config(15)
    (job,) = config["scrape_configs"]  # type: ignore[misc]
    assert job["honor_labels"] is True
    assert config["global"] == {"scrape_interval": "15s", "scrape_timeout": "15s"}

"""The framework's wiring: it watches and nudges, and never writes."""

from __future__ import annotations

import itertools

import kopf

from adaptive_operator.handlers import EndlessBackoffs, build_registry, configure_kopf, pod_meaning, spec_meaning
from stand_ins.raw_objects import NOT_READY, READY, build_accelerator_pool, build_model, build_pod


def test_retries_never_end_and_start_anew() -> None:
    backoffs = EndlessBackoffs()
    assert list(itertools.islice(backoffs, 500))[-1] == 5
    assert next(iter(backoffs)) == 0.5


def test_no_handler_needs_a_finalizer_or_writes_an_annotation() -> None:
    registry = build_registry(lambda: None, lambda: None, lambda: None, ())
    assert [h.id for h in registry._changing.get_all_handlers()] == []
    assert [h.id for h in registry._spawning.get_all_handlers()] == []
    assert {h.id for h in registry._watching.get_all_handlers()} == {"notice_model", "notice_pod", "notice_pool"}


def test_pools_are_watched_with_the_rights_of_the_cluster_only() -> None:
    registry = build_registry(lambda: None, lambda: None, lambda: None, ("team-a",))
    assert {h.id for h in registry._watching.get_all_handlers()} == {"notice_model", "notice_pod"}


async def test_an_edit_of_a_pool_wakes_the_planner_and_its_status_does_not() -> None:
    woken: list[str] = []
    registry = build_registry(lambda: woken.append("edit"), lambda: woken.append("pod"), lambda: None, ())
    notice = next(h.fn for h in registry._watching.get_all_handlers() if h.id == "notice_pool")
    pool = build_accelerator_pool(budget=4)
    await notice(body=kopf.Body(pool), type="ADDED")
    await notice(body=kopf.Body(pool | {"status": {"held": 3}}), type="MODIFIED")
    assert woken == ["edit"]
    pool["metadata"]["generation"] = 3
    await notice(body=kopf.Body(pool), type="MODIFIED")
    await notice(body=kopf.Body(pool), type="DELETED")
    assert woken == ["edit"] * 3


def test_timeouts_are_integers_where_they_go_into_a_query() -> None:
    settings = kopf.OperatorSettings()
    configure_kopf(settings, scans=True)
    assert isinstance(settings.watching.server_timeout, int)
    assert settings.posting.enabled is False
    assert settings.peering.standalone is True


def test_nothing_is_copied_of_an_object_that_is_only_noticed() -> None:
    settings = kopf.OperatorSettings()
    configure_kopf(settings, scans=True)
    storage, patch, body = settings.persistence.diffbase_storage, kopf.Patch(), kopf.Body(build_pod())
    essence = storage.build(body=body)
    storage.store(body=body, patch=patch, essence=essence)
    assert (dict(essence), storage.fetch(body=body), dict(patch)) == ({}, None, {})


def test_only_our_pods_are_watched() -> None:
    settings = kopf.OperatorSettings()
    configure_kopf(settings, scans=True)
    assert settings.watching.label_selectors["", "v1", "pods"] == "app.kubernetes.io/managed-by=adaptive-llm"


def test_named_namespaces_need_no_scanning() -> None:
    settings = kopf.OperatorSettings()
    configure_kopf(settings, scans=False)
    assert settings.scanning.disabled is True


def test_a_status_write_means_nothing_and_a_spec_edit_does() -> None:
    before = build_model()
    after = build_model() | {"status": {"x": 1}}
    assert spec_meaning(before) == spec_meaning(after)
    after["metadata"]["generation"] = 4
    assert spec_meaning(before) != spec_meaning(after)


def test_a_pod_that_became_ready_means_something_and_its_heartbeat_does_not() -> None:
    assert pod_meaning(build_pod(conditions=READY)) != pod_meaning(build_pod(conditions=NOT_READY))
    again = build_pod(conditions=READY)
    again["metadata"]["resourceVersion"] = "10"
    assert pod_meaning(build_pod(conditions=READY)) == pod_meaning(again)


async def test_an_edit_is_told_apart_from_a_pods_change_and_only_news_are_told() -> None:
    told: list[str] = []
    registry = build_registry(lambda: told.append("edit"), lambda: told.append("pod"), lambda: None, ())
    notice = {h.id: h.fn for h in registry._watching.get_all_handlers()}
    for model in (build_model(), build_model() | {"status": {"x": 1}}):
        await notice["notice_model"](body=kopf.Body(model), type="MODIFIED")
    pod = build_pod(conditions=READY)
    await notice["notice_pod"](body=kopf.Body(pod), type="MODIFIED")
    assert told == ["edit", "pod"]

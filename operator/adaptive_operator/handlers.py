"""kopf wiring, and nothing else: it watches, and says when something that matters changed. All work is the planner's.

No daemon, no create/update handler, no `patch`: so no finalizer and no annotation is ever written (and a model can be
deleted while the operator is down). What a pass decides on is read live, see observe/cluster.py.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any, Final

import kopf

from adaptive_operator.names import GROUP, PLURAL, POOL_PLURAL, VERSION
from adaptive_operator.observe.cluster import SELECTOR
from adaptive_operator.observe.manifests import Raw, metadata_of
from adaptive_operator.observe.pods import parse_pod
from adaptive_operator.planner import ChangeFilter

# An integer, although kopf's type says float: it goes into the query as it is, and the API server refuses 300.0.
_SERVER_TIMEOUT_SECONDS: Final = 300
_CONNECT_TIMEOUT_SECONDS: Final = 10.0


class EndlessBackoffs:
    """Delays between retries of API errors, in seconds: endless and iterable again, for kopf gives up at the end."""

    def __iter__(self) -> Iterator[float]:
        yield from (0.5, 1, 2, 3)
        while True:
            yield 5


class NoEssence(kopf.DiffBaseStorage):
    """Keeps nothing of an object. By default kopf copies every object of every event, to compare it with what a
    handler of changes saw last, and there are no such handlers: with 3,000 pods a fifth of all work at a start."""

    def build(self, *, body: kopf.Body, extra_fields: Any = None) -> kopf.BodyEssence:
        return kopf.BodyEssence()

    def fetch(self, *, body: kopf.Body) -> kopf.BodyEssence | None:
        return None

    def store(self, *, body: kopf.Body, patch: kopf.Patch, essence: kopf.BodyEssence) -> None:
        """Nothing: it would be an annotation of ours on somebody's object."""


def build_registry(
    on_edit: Callable[[], None], on_pod: Callable[[], None], on_stop: Callable[[], None], namespaces: tuple[str, ...]
) -> kopf.OperatorRegistry:
    """Handlers in a registry of their own: the spec of a model or pool changed, a pod changed.

    `on_stop` is called when kopf goes down, also on SIGTERM.
    """
    registry = kopf.OperatorRegistry()
    changes = ChangeFilter()

    @kopf.on.startup(registry=registry)  # type: ignore[untyped-decorator,unused-ignore]
    async def configure(settings: kopf.OperatorSettings, **_: Any) -> None:
        configure_kopf(settings, scans=not namespaces)

    @kopf.on.login(registry=registry)  # type: ignore[untyped-decorator,unused-ignore]
    async def login(settings: kopf.OperatorSettings, logger: Any, **_: Any) -> kopf.ConnectionInfo | None:
        by_account = kopf.login_with_service_account(settings=settings, logger=logger)
        return by_account or kopf.login_with_kubeconfig(settings=settings, logger=logger)

    @kopf.on.event(GROUP, VERSION, PLURAL, id="notice_model", registry=registry)  # type: ignore[untyped-decorator,unused-ignore]
    async def notice_model(body: kopf.Body, **kwargs: Any) -> None:
        if changes.is_news(str(body.metadata.uid), spec_meaning(body), gone=kwargs.get("type") == "DELETED"):
            on_edit()

    @kopf.on.event("", "v1", "pods", id="notice_pod", registry=registry)  # type: ignore[untyped-decorator,unused-ignore]
    async def notice_pod(body: kopf.Body, **kwargs: Any) -> None:
        if changes.is_news(str(body.metadata.uid), pod_meaning(body), gone=kwargs.get("type") == "DELETED"):
            on_pod()

    if not namespaces:  # pools are of the cluster: an operator of some namespaces has no right to see them

        @kopf.on.event(GROUP, VERSION, POOL_PLURAL, id="notice_pool", registry=registry)  # type: ignore[untyped-decorator,unused-ignore]
        async def notice_pool(body: kopf.Body, **kwargs: Any) -> None:
            if changes.is_news(str(body.metadata.uid), spec_meaning(body), gone=kwargs.get("type") == "DELETED"):
                on_edit()

    @kopf.on.cleanup(registry=registry)  # type: ignore[untyped-decorator,unused-ignore]
    async def stop(**_: Any) -> None:
        on_stop()

    return registry


def configure_kopf(settings: kopf.OperatorSettings, *, scans: bool) -> None:
    """Framework settings; the reasons are weather at the API server that 1.45 does not survive by itself."""
    settings.networking.error_backoffs = EndlessBackoffs()
    settings.networking.request_timeout = 30.0
    settings.networking.connect_timeout = _CONNECT_TIMEOUT_SECONDS
    settings.watching.server_timeout = _SERVER_TIMEOUT_SECONDS
    settings.watching.client_timeout = _SERVER_TIMEOUT_SECONDS + 30
    settings.watching.connect_timeout = _CONNECT_TIMEOUT_SECONDS
    # The key is a tuple: the documented 'v1/pods' matches nothing.
    settings.watching.label_selectors["", "v1", "pods"] = SELECTOR
    settings.scanning.disabled = not scans
    settings.persistence.diffbase_storage = NoEssence()
    settings.posting.enabled = False
    settings.peering.standalone = True
    settings.execution.default_backoff = 5.0


def spec_meaning(body: Raw) -> tuple[Any, ...]:
    """What of an AdaptiveModel or AcceleratorPool is worth a pass: its status is our own echo."""
    metadata = metadata_of(body)
    return metadata.get("generation"), metadata.get("deletionTimestamp")


def pod_meaning(body: Raw) -> tuple[Any, ...]:
    """What of a pod is worth a pass."""
    pod = parse_pod(body, "")
    return pod.phase, pod.started, pod.trouble, pod.load_failure_reason


def quieten_kopf() -> None:
    """kopf says at INFO what we say better, and each watch's reconnection."""
    logging.getLogger("kopf").setLevel(logging.WARNING)

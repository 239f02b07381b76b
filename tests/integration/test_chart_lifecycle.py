"""helm install, upgrade, uninstall on a real API server: definitions are upgraded, kept, adopted again, or removed.

The chart is the real one with a throw-away definition in place of its own, so nothing else in the cluster is touched.
Pods don't run here; that an operator starts and models survive an upgrade is for the end-to-end tests.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes import client
from kubernetes.client.exceptions import ApiException

CHART = Path(__file__).parents[2] / "helm" / "adaptive-llm"


@dataclass(frozen=True, slots=True)
class Release:
    """A release of a copy of the chart, and the definition that the copy carries."""

    api: client.ApiClient
    chart: Path
    name: str
    plural: str

    @property
    def definition(self) -> str:
        """Full name of the definition."""
        return f"{self.plural}.test.adaptivellm.dev"

    def helm(self, *arguments: str) -> str:
        """Run helm against the context that the tests may write to."""
        binary = os.environ.get("HELM") or shutil.which("helm")
        assert binary, "helm is not on the PATH: run these tests with `python -m e2e.cluster exec -- …`"
        context = os.environ["ADAPTIVE_TEST_CONTEXT"]
        done = subprocess.run(
            [binary, *arguments, "--namespace", self.name, "--kube-context", context],
            capture_output=True,
            text=True,
            timeout=50,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def install(self, *options: str) -> None:
        """`helm upgrade --install`: installs, or upgrades what is there."""
        self.helm("upgrade", "--install", self.name, str(self.chart), *options)

    def write_definition(self, *fields: str) -> None:
        """Put a definition with these fields into the chart."""
        schema = {
            "type": "object",
            "properties": {"spec": {"type": "object", "properties": {name: {"type": "string"} for name in fields}}},
        }
        singular = self.plural.removesuffix("s")
        manifest = {
            "apiVersion": "apiextensions.k8s.io/v1",
            "kind": "CustomResourceDefinition",
            "metadata": {"name": self.definition},
            "spec": {
                "group": "test.adaptivellm.dev",
                "scope": "Namespaced",
                "names": {"plural": self.plural, "singular": singular, "kind": singular.capitalize()},
                "versions": [
                    {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}},
                ],
            },
        }
        folder = self.chart / "files" / "crds"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        (folder / "definition.yaml").write_text(yaml.safe_dump(manifest))

    def fields(self) -> set[str]:
        """Fields of the definition as the API server has it; raises ApiException when it is gone."""
        read: Any = client.ApiextensionsV1Api(self.api).read_custom_resource_definition(self.definition)
        if read.metadata.deletion_timestamp is not None:
            raise ApiException(status=404, reason="being deleted")
        return set(read.spec.versions[0].schema.open_apiv3_schema.properties["spec"].properties)

    def objects(self) -> list[str]:
        """What lies in the release's namespace and was made by the chart."""
        selector = f"app.kubernetes.io/instance={self.name}"
        apps, core = client.AppsV1Api(self.api), client.CoreV1Api(self.api)
        rbac = client.RbacAuthorizationV1Api(self.api)
        pages: list[Any] = [
            apps.list_namespaced_deployment(self.name, label_selector=selector),
            core.list_namespaced_service(self.name, label_selector=selector),
            core.list_namespaced_service_account(self.name, label_selector=selector),
            rbac.list_namespaced_role(self.name, label_selector=selector),
            rbac.list_cluster_role(label_selector=selector),
            rbac.list_cluster_role_binding(label_selector=selector),
        ]
        return [item.metadata.name for page in pages for item in page.items if not item.metadata.deletion_timestamp]


@pytest.fixture
def release(api: client.ApiClient, tmp_path: Path) -> Iterator[Release]:
    """A copy of the chart, a namespace, and afterwards neither."""
    suffix = uuid.uuid4().hex[:8]
    release = Release(api, tmp_path / "chart", f"release-{suffix}", f"things{suffix}s")
    shutil.copytree(CHART, release.chart)
    release.write_definition("first")
    client.CoreV1Api(api).create_namespace({"metadata": {"name": release.name}})
    try:
        yield release
    finally:
        release.helm("uninstall", release.name, "--ignore-not-found")
        client.CoreV1Api(api).delete_namespace(release.name)
        _remove_definition(api, release.definition)


def _remove_definition(api: client.ApiClient, name: str) -> None:
    try:
        client.ApiextensionsV1Api(api).delete_custom_resource_definition(name)
    except ApiException as error:
        if error.status != 404:
            raise


def test_an_upgrade_reaches_the_definitions(release: Release) -> None:
    release.install()
    assert release.fields() == {"first"}
    release.write_definition("first", "second")
    release.install()
    assert release.fields() == {"first", "second"}


def test_uninstalling_keeps_the_definitions_and_leaves_nothing_else(release: Release) -> None:
    release.install()
    assert release.objects()
    release.helm("uninstall", release.name)
    assert release.objects() == []
    assert release.fields() == {"first"}


def test_installing_again_adopts_what_was_kept(release: Release) -> None:
    release.install()
    release.helm("uninstall", release.name)
    release.write_definition("first", "second")
    release.install()
    assert release.fields() == {"first", "second"}


def test_definitions_go_with_the_release_by_choice(release: Release) -> None:
    release.install("--set", "crds.keep=false")
    assert release.fields() == {"first"}
    release.helm("uninstall", release.name)
    with pytest.raises(ApiException, match="404"):
        release.fields()


def test_turning_definitions_off_in_an_upgrade_keeps_them(release: Release) -> None:
    release.install()
    release.install("--set", "crds.enabled=false")
    assert release.fields() == {"first"}


def test_an_upgrade_without_changes_restarts_nothing(release: Release) -> None:
    release.install()
    apps = client.AppsV1Api(release.api)
    before = apps.list_namespaced_deployment(release.name).items[0].metadata.generation
    release.install()
    assert apps.list_namespaced_deployment(release.name).items[0].metadata.generation == before


def test_a_new_engine_image_changes_the_operator_only(release: Release) -> None:
    release.install()
    release.install("--set", "images.engine.tag=next")
    (deployment,) = client.AppsV1Api(release.api).list_namespaced_deployment(release.name).items
    environment = {item.name: item.value for item in deployment.spec.template.spec.containers[0].env}
    assert environment["ADAPTIVE_ENGINE_IMAGE"].endswith(":next")
    assert deployment.spec.template.spec.containers[0].image.endswith(":dev")

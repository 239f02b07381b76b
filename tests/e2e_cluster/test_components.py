"""Configuration that is written for the components."""

from pathlib import Path

import pytest
import yaml

from e2e.cluster import access, binaries, controlplane, leftovers, node, pki, prometheus, runtime
from e2e.cluster.buildah import is_lasting
from e2e.cluster.kubectl import has_accelerators, is_ready_node
from e2e.cluster.pip_access import build_pip_configuration, describe_sources, parse_pip_settings
from e2e.cluster.settings import Cluster, ClusterError
from e2e.cluster.toolchain import parse_version


@pytest.fixture
def cluster(tmp_path: Path) -> Cluster:
    return Cluster("test", tmp_path)


def test_the_kubelet_keeps_its_files_and_its_pods_groups_to_the_cluster(cluster: Cluster):
    config = node.build_kubelet_config(cluster)
    assert config["cgroupRoot"] == "/adaptive-test"
    paths = [value for value in config.values() if isinstance(value, str) and value.startswith(("/", "unix:///"))]
    own = [p for p in paths if str(cluster.folder) in p]
    assert set(paths) - set(own) == {"/adaptive-test"}


def test_quarter_core_pods_get_short_periods(cluster: Cluster):
    config = node.build_kubelet_config(cluster)
    assert config["cpuCFSQuotaPeriod"] == "10ms"
    assert config["featureGates"] == {"CustomCPUCFSQuotaPeriod": True}


def test_pods_are_routed_without_a_bridge_and_without_iptables(cluster: Cluster):
    [plugin] = runtime.build_pod_network(cluster)["plugins"]  # type: ignore[misc]
    assert plugin["type"] == "ptp"
    assert plugin["ipMasq"] is False
    assert plugin["ipam"]["dataDir"].startswith(str(cluster.folder))


@pytest.mark.parametrize(
    ("mounts", "snapshotter"),
    [
        ("/dev/vda / ext4 rw 0 0", "overlayfs"),
        ("overlay / overlay rw 0 0", "native"),
        ("overlay / overlay rw 0 0\n/dev/sdb /data ext4 rw 0 0", "overlayfs"),
        ("/dev/vda / ext4 rw 0 0\noverlay /data overlay rw 0 0", "native"),
        ("overlay / overlay rw 0 0\n/dev/sdb /dat ext4 rw 0 0", "native"),
    ],
)
def test_layers_are_copied_where_the_folder_lies_on_an_overlay(mounts: str, snapshotter: str):
    assert runtime.find_snapshotter(mounts, Path("/data/clusters/x")) == snapshotter


def test_prometheus_takes_interval_and_address_from_settings_and_annotations():
    config = prometheus.build_config("500ms", Path("/k"))
    assert config["global"] == {"scrape_interval": "500ms", "scrape_timeout": "500ms"}
    [job] = config["scrape_configs"]  # type: ignore[misc]
    targets = {rule.get("target_label") for rule in job["relabel_configs"]}
    assert {"namespace", "pod", "node", "__address__", "__metrics_path__"} <= targets
    assert yaml.safe_load(yaml.safe_dump(config)) == config


def test_the_prometheus_service_has_no_selector_and_its_endpoint_is_the_node():
    namespace, service, endpoints = prometheus.build_objects()
    assert namespace["metadata"] == {"name": "monitoring"}
    assert "selector" not in service["spec"]  # type: ignore[operator]
    assert endpoints["endpoints"] == [{"addresses": ["10.200.0.1"], "conditions": {"ready": True}}]


def test_only_two_identities_serve_and_the_node_is_in_the_group_that_the_authorizer_knows(cluster: Cluster):
    identities = {i.file: i for i in pki.list_identities(cluster)}
    assert {name for name, i in identities.items() if i.names} == {"apiserver", "kubelet-server"}
    assert identities["kubelet"].organisation == "system:nodes"
    assert identities["kubelet"].common_name == "system:node:adaptive-test"


def test_pod_security_stays_on_and_rbac_decides(cluster: Cluster, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(controlplane, "enter", lambda _: ["nsenter"])
    argv = controlplane.build_apiserver(cluster, {"kube-apiserver": Path("/bin/a")}).argv
    assert "--authorization-mode=Node,RBAC" in argv
    assert not any(a.startswith("--disable-admission-plugins") for a in argv)


def build_node(ready: str, taints: list[str], gpus: str | None) -> dict[str, object]:
    amounts = {"cpu": "2"} | ({"nvidia.com/gpu": gpus} if gpus else {})
    status = {"conditions": [{"type": "Ready", "status": ready}], "capacity": amounts, "allocatable": amounts}
    return {"status": status, "spec": {"taints": [{"key": key} for key in taints]}}


@pytest.mark.parametrize(
    ("ready", "taints", "expected"),
    [
        ("True", [], True),
        ("Unknown", [], False),
        ("True", ["node.kubernetes.io/not-ready"], False),
        ("True", ["team/own"], True),
    ],
)
def test_a_node_is_ready_once_pods_may_run(ready: str, taints: list[str], expected: bool):
    assert is_ready_node(build_node(ready, taints, None)) is expected


@pytest.mark.parametrize(("gpus", "expected"), [("4", True), ("0", False), (None, False), ("8", False)])
def test_accelerators_are_advertised_only_if_the_number_is_right(gpus: str | None, expected: bool):
    assert has_accelerators(build_node("True", [], gpus), "4") is expected


def test_mounts_below_the_folder_are_listed_deepest_first_and_others_never():
    lines = [
        "1 0 8:1 / / rw - ext4 /dev/vda rw",
        "2 1 0:5 / /s/dev/kubelet/pods/a rw - tmpfs tmpfs rw",
        "3 2 0:6 / /s/dev/kubelet/pods/a/b\\040c rw - tmpfs tmpfs rw",
        "4 1 0:7 / /s/dev-2/x rw - tmpfs tmpfs rw",
    ]
    found = leftovers.list_mounts("\n".join(lines), Path("/s/dev"))
    assert found == ["/s/dev/kubelet/pods/a/b c", "/s/dev/kubelet/pods/a"]


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (
            ["/x/shim", "-namespace", "k8s.io", "-id", "a", "-address", "/s/dev/containerd.sock"],
            True,
        ),
        (["/x/shim", "-namespace", "k8s.io", "-id", "a", "-address", "/run/c.sock"], False),
        (["grep", "/s/dev/containerd.sock"], False),
        (["x", "-address"], False),
    ],
)
def test_a_shim_is_known_by_the_socket_it_serves(command: list[str], expected: bool):
    assert leftovers.is_shim(command, "/s/dev/containerd.sock") is expected


def test_only_the_cluster_s_own_network_results_are_removed(cluster: Cluster, tmp_path: Path):
    sandboxes = cluster.folder / "containerd" / "root" / "io.containerd.grpc.v1.cri" / "sandboxes"
    (sandboxes / ("a" * 64)).mkdir(parents=True)
    results = tmp_path / "results"
    results.mkdir()
    own = [f"cni-loopback-{'a' * 64}-lo", f"adaptive-test-{'a' * 64}-eth0", f"adaptive-test-{'c' * 64}-eth0"]
    other = [f"cni-loopback-{'b' * 64}-lo", f"adaptive-test-2-{'b' * 64}-eth0"]
    for name in own + other:
        (results / name).touch()
    assert sorted(p.name for p in leftovers.list_network_results(cluster, results)) == sorted(own)


LISTENING = "0: 00000002 00000000 00010000 0001 01 21 /var/lib/kubelet/device-plugins/kubelet.sock"


@pytest.mark.parametrize(("sockets", "expected"), [(LISTENING, True), ("Num RefCount", False), ("", False)])
def test_a_kubelet_of_the_host_s_own_is_noticed(sockets: str, expected: bool):
    assert node.has_foreign_kubelet(sockets) is expected


def test_pip_settings_come_from_every_level_and_secrets_of_other_commands_stay():
    listing = "global.index-url='https://mirror.invalid/simple'\n:env:.timeout='180'\nuser.token='x'\ninstall.user='1'"
    assert parse_pip_settings(listing) == {"index-url": "https://mirror.invalid/simple", "timeout": "180"}


def test_the_further_index_for_torch_joins_the_user_s_own():
    text = build_pip_configuration({"extra-index-url": "https://a.invalid"}, ["/wheels"], "https://b.invalid")
    assert "https://a.invalid" in text
    assert "https://b.invalid" in text
    assert "/etc/ssl/certs/ca-certificates.crt" in text


def test_another_wheel_is_another_source_of_packages(tmp_path: Path):
    environment = {"TORCH_FIND_LINKS": str(tmp_path)}
    before = describe_sources(environment)
    (tmp_path / "torch-1-py3-none-any.whl").write_bytes(b"x")
    assert describe_sources(environment) != before
    assert describe_sources({}) != describe_sources({"TORCH_INDEX": "https://a.invalid"})


@pytest.mark.parametrize(
    ("text", "version"),
    [("go version go1.26.8 linux/amd64", (1, 26)), ("go version go1.27rc1 linux/arm64", (1, 27)), ("?", None)],
)
def test_go_s_version_is_read(text: str, version: tuple[int, int] | None):
    assert parse_version(text) == version


def test_a_command_in_a_cluster_that_is_not_up_says_how_to_start_it(cluster: Cluster):
    with pytest.raises(ClusterError, match="up --name test"):
        access.replace_by(cluster, ["true"])


def test_an_empty_command_is_refused_with_an_example(cluster: Cluster):
    with pytest.raises(ClusterError, match="exec --name N -- kubectl"):
        access.replace_by(cluster, [])


@pytest.mark.parametrize(
    ("name", "lasting"),
    [
        ("localhost/adaptive-base:bookworm", True),
        ("localhost/adaptive-base:bookworm-0a1b2c3d", True),
        ("localhost/adaptive-llm-engine:dev", True),
        ("localhost/adaptive-llm-engine:upgrade-2", False),
    ],
)
def test_only_tags_made_for_a_test_are_forgotten_with_time(name: str, lasting: bool):
    assert is_lasting(name) is lasting


def _flags(spec: object) -> set[str]:
    return {str(argument).partition("=")[0] for argument in spec.argv}  # type: ignore[attr-defined]


@pytest.mark.parametrize("large", [False, True])
def test_only_a_large_cluster_is_audited_and_unthrottled(
    tmp_path: Path, large: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(controlplane, "enter", lambda _: ["nsenter"])
    cluster = Cluster("test", tmp_path, large=large)
    names = ("kube-apiserver", "kube-controller-manager", "kube-scheduler")
    paths = {name: Path(f"/bin/{name}") for name in names}
    assert ("--audit-log-path" in _flags(controlplane.build_apiserver(cluster, paths))) is large
    assert ("--kube-api-qps" in _flags(controlplane.build_controller_manager(cluster, paths))) is large
    assert ("--kube-api-qps" in _flags(controlplane.build_scheduler(cluster, paths))) is large
    assert (cluster.config / "audit.yaml").exists() is large


def test_the_audit_log_has_the_writes_of_accounts_and_leaves_out_the_controllers() -> None:
    controllers, sets, accounts, rest = controlplane.build_audit_policy()["rules"]  # type: ignore[misc]
    assert controllers == {"level": "None", "userGroups": ["system:serviceaccounts:kube-system"]}
    assert (sets["level"], accounts["level"], rest) == ("Request", "Metadata", {"level": "None"})
    assert "get" not in accounts["verbs"]


def test_kwok_is_asked_for_only_where_it_is_wanted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(binaries, "cache_folder", lambda: tmp_path)
    for binary in binaries.BINARIES:
        path = binaries._target(binary, binaries.toolchain.cache_key())
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    assert "kwok" not in binaries.find_binaries()
    with pytest.raises(ClusterError, match="not built yet: kwok;"):
        binaries.find_binaries((*binaries.BINARIES, binaries.KWOK))

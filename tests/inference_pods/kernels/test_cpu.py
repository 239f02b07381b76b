import pytest

from inference_pods.kernels.cpu import allowed_threads, parse_cpuinfo, read_quota_cores


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("avx512f avx512bw avx512vl avx512dq avx512_vnni avx2 fma f16c", "avx512"),
        ("avx512f avx512bw avx512vl avx512dq avx2 fma f16c", "avx2"),
        ("avx2 fma", "generic"),
        ("sse2", "generic"),
    ],
    ids=["with VNNI", "AVX-512 without VNNI", "no F16C", "old"],
)
def test_the_best_variant_needs_all_of_its_flags(flags, expected):
    cpu = parse_cpuinfo(f"processor\t: 0\nmodel name\t: Some CPU\nflags\t\t: {flags}\n\nprocessor\t: 1\n")
    assert cpu.best_variant() == expected
    assert cpu.describe().startswith("Some CPU")


def test_a_cpu_without_flags_gets_the_portable_variant():
    assert parse_cpuinfo("processor: 0\nFeatures: asimd\n").best_variant() == "generic"


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({"cpu.max": "25000 100000"}, 0.25),
        ({"cpu.max": "max 100000"}, None),
        ({"cpu/cpu.cfs_quota_us": "2500", "cpu/cpu.cfs_period_us": "10000"}, 0.25),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None),
        ({"cpu,cpuacct/cpu.cfs_quota_us": "150000", "cpu,cpuacct/cpu.cfs_period_us": "100000"}, 1.5),
        ({}, None),
        ({"cpu.max": "broken"}, None),
        (
            {
                "self": "0::/pods/engine",
                "cpu.max": "max 1000",
                "pods/cpu.max": "3000 1000",
                "pods/engine/cpu.max": "500 1000",
            },
            0.5,
        ),
        (
            {
                "self": "4:memory:/pod\n3:cpu,cpuacct:/pod",
                "cpu,cpuacct/cpu.cfs_quota_us": "-1",
                "cpu,cpuacct/cpu.cfs_period_us": "100000",
                "cpu,cpuacct/pod/cpu.cfs_quota_us": "2500",
                "cpu,cpuacct/pod/cpu.cfs_period_us": "10000",
            },
            0.25,
        ),
        ({"self": "0::/only/visible/from/the/host", "cpu.max": "2000 1000"}, 2.0),
    ],
    ids=[
        "v2 quota",
        "v2 none",
        "v1 10 ms period",
        "v1 none",
        "v1 joined controllers",
        "no cgroup",
        "unreadable",
        "v2 nested: the smallest counts",
        "v1 own group",
        "a container sees its group as the root",
    ],
)
def test_the_quota_is_read_from_both_cgroup_versions(tmp_path, files, cores):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert read_quota_cores(tmp_path, tmp_path / "self") == cores


@pytest.mark.parametrize(
    ("available", "quota", "threads"),
    [(8, None, 8), (8, 0.25, 1), (8, 1.5, 1), (8, 2.0, 2), (2, 16.0, 2), (0, None, 1)],
)
def test_threads_never_exceed_the_quota_nor_fall_below_one(available, quota, threads):
    assert allowed_threads(available, quota) == threads

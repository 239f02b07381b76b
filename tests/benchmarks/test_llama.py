import json

from benchmarks.llama import measure, parse_batched, parse_bench
from benchmarks.workload import Workload


def test_llama_bench_names_decode_and_prefill():
    runs = [{"n_prompt": 512, "n_gen": 0, "avg_ts": 389.5}, {"n_prompt": 0, "n_gen": 64, "avg_ts": 42.8}]

    assert parse_bench(json.dumps(runs)) == {"prefill 512": 389.5, "decode 1": 42.8}


def test_batched_bench_is_read_between_other_lines():
    lines = ["main: n_kv_max = 4096", '{"pp": 128, "tg": 64, "pl": 8, "speed_pp": 300.0, "speed_tg": 150.5}', "", ""]

    assert parse_batched("\n".join(lines)) == {"decode 8": 150.5}


PROGRAM = """#!/bin/sh
[ -z "$OMP_WAIT_POLICY$GOMP_SPINCOUNT" ] || { echo "threads are told how to wait" >&2; exit 3; }
case "$*" in
*"-p 0"*) echo '[{"n_prompt": 0, "n_gen": 64, "avg_ts": 2.0}]' ;;
*-npl*) echo '{"pl": 8, "speed_tg": 3.0}' ;;
*) echo '[{"n_prompt": 512, "n_gen": 0, "avg_ts": 4.0}]' ;;
esac
"""


def test_the_peers_threads_wait_as_the_peer_wants_whatever_our_engine_set_for_its_own(tmp_path, monkeypatch):
    """Told to sleep, they decode at half their speed."""
    for name in ("llama-bench", "llama-batched-bench"):
        (tmp_path / name).write_text(PROGRAM)
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")
    monkeypatch.setenv("GOMP_SPINCOUNT", "0")

    speeds = measure(tmp_path, tmp_path / "model.gguf", Workload(context=128, new_tokens=64, prefills=2, threads=2))

    assert speeds == {"decode 1": 2.0, "decode 8": 3.0, "prefill 512": 4.0}

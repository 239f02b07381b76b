import json

from benchmarks.llama import parse_batched, parse_bench


def test_llama_bench_names_decode_and_prefill():
    runs = [{"n_prompt": 512, "n_gen": 0, "avg_ts": 389.5}, {"n_prompt": 0, "n_gen": 64, "avg_ts": 42.8}]

    assert parse_bench(json.dumps(runs)) == {"prefill 512": 389.5, "decode 1": 42.8}


def test_batched_bench_is_read_between_other_lines():
    lines = ["main: n_kv_max = 4096", '{"pp": 128, "tg": 64, "pl": 8, "speed_pp": 300.0, "speed_tg": 150.5}', "", ""]

    assert parse_batched("\n".join(lines)) == {"decode 8": 150.5}

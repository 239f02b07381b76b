"""docs/engine.md names what there is: metrics, headers, arguments, reasons, limits."""

import argparse
import re
from pathlib import Path

import pytest

from inference_pods import protocol
from inference_pods.engine import bodies
from inference_pods.engine.errors import LoadReason
from inference_pods.engine.http_common import MAX_BODY_BYTES
from inference_pods.engine.settings import _build_parser

PAGE = (Path(__file__).parents[3] / "docs" / "engine.md").read_text()
METRICS = {value for name, value in vars(protocol).items() if name.startswith("ENGINE_") and isinstance(value, str)}
FLAGS = {flag for action in _build_parser()._actions for flag in action.option_strings} - {"-h"}


def test_every_metric_is_on_the_page_and_no_other():
    assert set(re.findall(r"`(adaptive_engine_\w+)`", PAGE)) == METRICS


def test_every_argument_is_on_the_page_and_no_other():
    assert set(re.findall(r"(?<![\w-])(--[a-z][a-z0-9-]+)", PAGE)) == FLAGS


@pytest.mark.parametrize("reason", LoadReason)
def test_every_reason_stands_beside_its_exit_code(reason):
    assert f"| `{reason.value}` | {reason.exit_code} |" in PAGE


@pytest.mark.parametrize("header", ["LEVEL", "PRIORITY", "DEADLINE_MS", "SPECULATE", "REQUEST_ID"])
def test_every_request_header_is_on_the_page(header):
    assert f"| `{getattr(protocol, f'HEADER_{header}')}` |" in PAGE


@pytest.mark.parametrize(
    "line",
    [
        f"| body | {MAX_BODY_BYTES // 2**20} MiB |",
        f"| stop strings | {bodies.MAX_STOP_SEQUENCES},",
        f"`top_n_tokens` {bodies.MAX_TOP_TOKENS}, `top_logprobs` (chat) {bodies.MAX_TOP_LOGPROBS}",
        f"| `best_of`, `n` | {bodies.MAX_SIBLINGS},",
        f"| prompt as token ids | {bodies.MAX_PROMPT_TOKENS:,},",
        f"| messages, parts of one message | {bodies.MAX_MESSAGES} each",
    ],
)
def test_the_limits_are_those_of_the_bodies(line):
    assert line in PAGE


def test_the_defaults_are_those_of_the_arguments():
    defaults = argparse.Namespace(**vars(_build_parser().parse_args(["--model-source", "file:///x"])))
    assert f"| {defaults.kv_cache_tokens}; {defaults.max_total_tokens} |" in PAGE
    assert f"| {defaults.max_batch_size}; {defaults.max_waiting} |" in PAGE
    assert f"| `--max-step-tokens` | {defaults.max_step_tokens} |" in PAGE
    assert f"| `--drain-seconds` | {defaults.drain_seconds:g} |" in PAGE
    assert f"| on; {defaults.write_timeout_seconds} |" in PAGE

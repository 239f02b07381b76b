"""`kubectl adaptive explain am/NAME`: what was decided last for a model, why, what binds, and what was decided before.

Reads the object through kubectl, so every way to reach a cluster works that kubectl knows.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from typing import Any, Final

from pydantic import ValidationError

from adaptive_operator import names
from adaptive_operator.api.status import AdaptiveModelStatus, DecisionStatus, GainOf, SwapStatus
from adaptive_operator.api.v1alpha1 import AdaptiveModel
from adaptive_operator.cli.summaries import SUMMARIES
from adaptive_operator.cli.version import package_version

_KUBECTL_SECONDS: Final = 30.0
_WIDTH: Final = 12
_MOST_SHOWN: Final = 60  # characters of what is no object
_KINDS: Final = ("am", names.PLURAL, names.KIND.lower())  # also with the group, as `kubectl get -o name` prints it
_LOGGED: Final = re.compile(r"[IWEF]\d{4} ")  # klog: severity, month and day


class ExplainError(Exception):
    """The model cannot be read; the text is kubectl's, or names the field."""


def add_command(commands: Any) -> None:
    """Add `explain` to the parser."""
    text = SUMMARIES["explain"]
    parser = commands.add_parser("explain", help=text, description=text)
    parser.add_argument("model", help="am/NAME, or only NAME")
    parser.add_argument("-n", "--namespace", help="the model's namespace (default: kubectl's)")
    parser.add_argument("--context", help="kubeconfig context (default: kubectl's)")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Do it. 0, or 1 with the cause on stderr."""
    try:
        model = parse_model(_read(options))
    except ExplainError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    sys.stdout.write("\n".join(explain_lines(model)) + "\n")
    return 0


def parse_model(text: str) -> AdaptiveModel:
    """The object from kubectl's JSON. Raises ExplainError."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ExplainError(f"kubectl did not answer with JSON: {error}") from error
    if not isinstance(document, dict):
        raise ExplainError(f"kubectl answered with {_shortened(text)}, which is no object")
    try:
        return AdaptiveModel.model_validate(document)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(step) for step in first["loc"])
        hint = f"this is kubectl-adaptive {package_version()}; use that of the operator's version"
        raise ExplainError(f"{field}: {first['msg']}; {hint}") from error


def _shortened(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _MOST_SHOWN else f"{line[:_MOST_SHOWN]}…"


def explain_lines(model: AdaptiveModel) -> Iterator[str]:
    """The whole text, line by line."""
    metadata, status = model.metadata, model.status
    yield f"{metadata.get('namespace', 'default')}/{metadata['name']}, mode {model.spec.mode.value}"
    if status is None or not status.conditions:
        yield "nothing was decided yet: does the operator run, and does it watch this namespace?"
        return
    if status.last_decision is None:
        yield "nothing was decided yet"
        yield from _doubt_lines(status)
        return
    yield from _state_lines(status, metadata)
    yield ""
    yield from _decision_lines(status.last_decision)
    if status.swap is not None:
        yield from _swap_lines(status.swap)
    yield from _doubt_lines(status)
    yield from _history_lines(status)


def _state_lines(status: AdaptiveModelStatus, metadata: Mapping[str, Any]) -> Iterator[str]:
    shares = ", ".join(f"{tier.name} {tier.weight_percent} %" for tier in status.tiers if tier.weight_percent)
    yield _row("runs", status.tiers_summary or "nothing")
    yield _row("traffic", shares or "no tier is open")
    yield _row("holds", f"{status.accelerators_summary or '0'} accelerators")
    yield _row("quality", status.served_quality_summary or "nothing was served lately")
    if status.observed_generation != metadata.get("generation"):
        yield _row("note", "the last edit of the spec was not decided on yet")


def _decision_lines(decision: DecisionStatus) -> Iterator[str]:
    yield f"{decision.reason} since {decision.time}"
    yield _row("from", decision.from_)
    yield _row("to", decision.to)
    yield _row("because", decision.message)
    yield _row("seen", decision.inputs)
    if decision.pool is not None:
        yield _row("pool", decision.pool)
    if decision.alternative is None and not decision.binding:
        yield _row("binding", "not known: demand or tier cards were not known, or no other mix is possible")
        return
    yield _row("binding", "; ".join(decision.binding) or "nothing: no constraint taken away would serve better")
    yield _row("instead", decision.alternative or "no other mix is possible")


def _swap_lines(swap: SwapStatus) -> Iterator[str]:
    yield _row("under way", f"{swap.step} since {swap.started_at}, rolled back after {swap.deadline}")
    yield _row("predicted", _prediction_text(swap))


def _prediction_text(swap: SwapStatus) -> str:
    """What the swap brings and costs; of a gain without its unit, an older operator's, not even whether it is one."""
    gain, dip = swap.predicted_gain_permille, swap.predicted_dip_permille
    if gain is None or dip is None or swap.predicted_gain_of is None:
        return "not predicted"
    meanwhile = f"{dip} permille of the requests wait or are refused meanwhile"
    if swap.predicted_gain_of == GainOf.REQUESTS:
        return f"{abs(gain)} permille {'fewer' if gain < 0 else 'more'} of the requests served, {meanwhile}"
    return f"quality {abs(gain)} permille {'lower' if gain < 0 else 'higher'}, {meanwhile}"


def _doubt_lines(status: AdaptiveModelStatus) -> Iterator[str]:
    """Conditions that are not as they should be, or of which that is not known: they say what is missing."""
    right_when = {"CapacityLimited": "False", "Degraded": "False"}
    doubts = [item for item in status.conditions if item.status != right_when.get(item.type, "True")]
    if doubts:
        yield ""
    for item in doubts:
        yield _printable(f"{item.type}={item.status} ({item.reason}): {item.message}")


def _history_lines(status: AdaptiveModelStatus) -> Iterator[str]:
    earlier = [entry for entry in reversed(status.history) if entry != status.last_decision]
    if not earlier:
        return
    yield ""
    yield "before"
    for entry in earlier:
        yield _printable(f"  {entry.time}  {entry.reason}: {entry.from_} → {entry.to}; {entry.message}")


def _row(name: str, text: str) -> str:
    return f"  {name:<{_WIDTH}}{_printable(text)}"


def _printable(text: str) -> str:
    """Words of pods and kubelets are shown, what they would do to a terminal is not."""
    return "".join(c if c.isprintable() else " " for c in text)


def _read(options: argparse.Namespace) -> str:
    if not options.model:
        raise ExplainError("no model is named: give am/NAME, or only NAME")
    kind, slash, name = options.model.rpartition("/")
    if (slash and kind.lower().removesuffix(f".{names.GROUP}") not in _KINDS) or not name:
        raise ExplainError(f"{options.model}: only models can be explained: give am/NAME, or only NAME")
    command = ["kubectl", "get", f"{names.PLURAL}.{names.GROUP}", "-o", "json"]
    command += [f"--{flag}={value}" for flag in ("namespace", "context") if (value := getattr(options, flag))]
    try:
        answer = subprocess.run(
            [*command, "--", name], capture_output=True, text=True, check=False, timeout=_KUBECTL_SECONDS
        )
    except FileNotFoundError as error:
        raise ExplainError("kubectl is not on the PATH: install it, or add its folder") from error
    except subprocess.TimeoutExpired as error:
        raise ExplainError(f"kubectl did not answer within {_KUBECTL_SECONDS:.0f} s") from error
    if answer.returncode != 0:
        raise ExplainError(_cause(answer.stderr) or f"kubectl failed with exit status {answer.returncode}")
    return answer.stdout


def _cause(told: str) -> str:
    """What kubectl says, without what it logs before that (each attempt to reach a server), where it says anything."""
    lines = told.strip().splitlines()
    said = [line for line in lines if not _LOGGED.match(line)] or lines
    return "\n".join(said).removeprefix("error: ")

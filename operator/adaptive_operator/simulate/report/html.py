"""One self-contained HTML file: the table, the plots as inline SVG, the load and the objective. No scripts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, Final

from adaptive_operator.simulate.report.inputs import Inputs, format_html
from adaptive_operator.simulate.report.words import LEFT_OUT, MEANINGS

_STYLE: Final = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:1100px;margin:2em auto;padding:0 1em;color:#222}"
    "table{border-collapse:collapse;font-size:13px}td,th{padding:.3em .7em;text-align:right;border-bottom:1px solid"
    " #ddd;white-space:nowrap}td:first-child,th:first-child{text-align:left}.wide{overflow-x:auto}svg{max-width:100%;"
    "height:auto}"
)


def build_html(
    document: Mapping[str, Any],
    inputs: Inputs,
    rows: Sequence[Sequence[str]],
    plots: Mapping[str, str],
    repeated: Sequence[Sequence[str]] = (),
) -> str:
    """The page. `rows` of the first seed and `repeated` over all: header first; `plots`: title -> SVG text."""
    title = f"Simulation of {document['model']}"
    figures = "".join(f"<h2>{escape(name)}</h2>{_inline(svg)}" for name, svg in plots.items())
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f"<style>{_STYLE}</style></head><body><h1>{escape(title)}</h1>"
        f"{_introduction(document)}{format_html(inputs.lines())}"
        f'{_repeated(document, repeated)}<div class="wide">{_table(rows)}</div>'
        f"{_meanings()}{_notes(document)}{figures}</body></html>\n"
    )


def _introduction(document: Mapping[str, Any]) -> str:
    load = document["load"]
    text = (
        f"{load['requestsAtScaleOne']} requests in {load['seconds']:.0f} s, x{load['scale']:g} (seed {load['seed']}),"
        f" on {document['budget']} accelerators."
    )
    for name, objective in document["objectives"].items():
        text += (
            f" Objective of {name}: first token within {objective['ttftSeconds']:g} s,"
            f" {1000 * objective['tpotSeconds']:g} ms per token; quality floor {objective['floor']:g}."
        )
    guesses = "".join(f"<p><strong>{escape(line)}</strong></p>" for line in document.get("guesses", ()))
    return f"<p>{escape(text)}</p>{guesses}"


def _repeated(document: Mapping[str, Any], rows: Sequence[Sequence[str]]) -> str:
    """Means over the seeds, before the figures of the first one."""
    if not rows:
        return ""
    count = len(document["repeated"]["seeds"])
    title = f"Means over {count} seeds with 95 % confidence intervals; differences are paired"
    return f'<h2>{escape(title)}</h2><div class="wide">{_table(rows)}</div><h2>The first seed</h2>'


def _notes(document: Mapping[str, Any]) -> str:
    """Of what the policies were tuned on, and how."""
    notes = [*document["notes"], *(note for policy in document["policies"] for note in policy["notes"])]
    items = "".join(f"<li>{escape(note)}</li>" for note in notes)
    return f"<ul>{items}</ul>" if items else ""


def _meanings() -> str:
    items = "".join(f"<li><b>{escape(column)}</b>: {escape(text)}</li>" for column, text in MEANINGS.items())
    return f"<details><summary>What the columns say</summary><p>{escape(LEFT_OUT)}</p><ul>{items}</ul></details>"


def _table(rows: Sequence[Sequence[str]]) -> str:
    header, *body = rows
    head = "".join(f"<th>{escape(cell)}</th>" for cell in header)
    lines = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in body)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{lines}</tbody></table>"


def _inline(svg: str) -> str:
    """From the root element on: an XML declaration has no place inside HTML."""
    return svg[svg.index("<svg") :]

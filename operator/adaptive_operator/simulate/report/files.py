"""The files of a report in a folder: result.json, report.html, and each plot as SVG and PNG."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from adaptive_operator.simulate.comparison import Comparison, Judged
from adaptive_operator.simulate.repeated import Repeated
from adaptive_operator.simulate.report.html import build_html
from adaptive_operator.simulate.report.inputs import Inputs
from adaptive_operator.simulate.report.table import build_document, build_repeated_rows, build_rows

if TYPE_CHECKING:
    from adaptive_operator.simulate.report.plots import Plot


def write_report(
    folder: Path,
    comparison: Comparison,
    inputs: Inputs,
    judged: list[Judged],
    repeated: Sequence[Repeated] = (),
    seeds: Sequence[int] = (),
) -> None:
    """Write all of them; the folder is made. Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    document = build_document(comparison, inputs, judged, repeated, seeds)
    plots: dict[str, Plot] = {}
    for index, model in enumerate(comparison.models):
        own = [item.of_model(index) for item in judged]
        plots.update(_draw(own, f"{model.scenario.name}: " if len(comparison.models) > 1 else ""))
    (folder / "result.json").write_text(json.dumps(document, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    for title, plot in plots.items():
        (folder / f"{file_name(title)}.svg").write_text(plot.svg, encoding="utf-8")
        (folder / f"{file_name(title)}.png").write_bytes(plot.png)
    drawn = {title: plot.svg for title, plot in plots.items()}
    rows = build_repeated_rows(repeated, comparison.seconds) if repeated else ()
    (folder / "report.html").write_text(build_html(document, inputs, build_rows(judged), drawn, rows), encoding="utf-8")


def file_name(title: str) -> str:
    """Of a plot, without its ending. Example: `Replicas: hpa:0.7` is `replicas-hpa-0-7`."""
    words = "".join(c if c.isalnum() else " " for c in title.lower()).split()
    return "-".join(words)


def _draw(judged: list[Judged], prefix: str) -> dict[str, Plot]:
    """The plots of one model, by title."""
    # Here, because matplotlib takes a second to import and most runs draw nothing.
    from adaptive_operator.simulate.report.plots import draw_replicas, draw_service, draw_trade

    plots = {
        f"{prefix}Load and quality": draw_service(judged),
        f"{prefix}Quality against violations": draw_trade(judged),
    }
    return {**plots, **{f"{prefix}Replicas: {item.name}": draw_replicas(item) for item in judged}}

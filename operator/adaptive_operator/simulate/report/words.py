"""What the columns of a comparison mean, for whoever has the report and not the documentation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

LEFT_OUT: Final = (
    "Requests of the first ten minutes, or of the first sixth of a shorter run, are left out. What is held, starts and"
    " flaps are those of the whole run."
)
MEANINGS: Final[Mapping[str, str]] = {
    "violations": "requests that were not answered within both objectives, refused and failed ones included",
    "unserved": "requests that were never answered to the end",
    "TTFT ok": "requests within the objective for the time to the first token",
    "TPOT ok": "requests within the objective for the time per token after the first",
    "quality": "mean quality of the requests that were answered within both objectives; 1 is the full model's",
    "system accuracy": "the same over all requests, where the others count as 0",
    "quality p5": "5th percentile of the quality of 10 s windows with 20 requests or more",
    "acc.-hours": "hours of accelerators that were held",
    "not ready": "the part of them in which replicas loaded, drained or ended",
    "starts/h": "replicas that were started in an hour",
    "flaps": "mixes between two equal ones that lived for less than max(300 s, 5 load times) / than 15 minutes",
    "most held": "accelerators held at once",
    "plan p95": "95th percentile of the time that a decision of ours took on the machine that simulated",
}

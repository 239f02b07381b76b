from dataclasses import replace

import pytest

from inference_pods.engine.batch_limit import BatchBound, BatchLimit, BatchState, decide_batch_limit

BASE = BatchState(
    max_batch_size=8, running=2, waiting=9, free_blocks=10, own_blocks=(3, 5), usual_blocks=None, tpot_sequences=None
)


@pytest.mark.parametrize(
    ("name", "change", "size", "bound"),
    [
        ("nothing known: the maximum", {}, 8, BatchBound.MAX),
        ("nobody waits", {"waiting": 0}, 8, BatchBound.QUEUE),
        ("all who wait will fit", {"waiting": 6}, 8, BatchBound.QUEUE),
        ("one more than fits waits", {"waiting": 7}, 8, BatchBound.MAX),
        ("the objective allows five rows", {"tpot_sequences": 5}, 5, BatchBound.TPOT),
        ("the objective is out of reach: one runs", {"tpot_sequences": -3}, 1, BatchBound.TPOT),
        ("the docstring's example", {"usual_blocks": 6.0}, 3, BatchBound.MEMORY),
        ("running ones will need more than there is", {"usual_blocks": 12.0}, 1, BatchBound.MEMORY),
        ("short sequences leave room", {"usual_blocks": 1.0}, 8, BatchBound.MAX),
        ("the tighter of two binds", {"usual_blocks": 6.0, "tpot_sequences": 2}, 2, BatchBound.TPOT),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_limit_and_what_binds_it(name, change, size, bound):
    assert decide_batch_limit(replace(BASE, **change)) == BatchLimit(size, bound)

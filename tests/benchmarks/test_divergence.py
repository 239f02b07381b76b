import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.divergence import WindowFigures, compare, log_softmax, summarise
from benchmarks.held_out_text import strip_html


def test_a_model_does_not_diverge_from_itself():
    scores = log_softmax(np.random.default_rng(1).normal(size=(5, 20)).astype(np.float32))

    assert compare(scores, scores, [0, 1, 2, 3, 4]) == WindowFigures(0.0, 0.0, 1.0)


def test_divergence_and_loss_equal_a_computation_by_hand():
    reference, candidate = (np.log(np.array([row], np.float32)) for row in ([0.5, 0.5], [0.25, 0.75]))

    figures = compare(reference, candidate, [0])

    assert figures.divergence == pytest.approx(0.5 * math.log(2) + 0.5 * math.log(2 / 3), rel=1e-5)
    assert figures.extra_loss == pytest.approx(math.log(2), rel=1e-5)


def test_agreement_counts_equal_best_tokens():
    reference = log_softmax(np.array([[9, 0], [9, 0], [0, 9], [0, 9]], np.float32))
    candidate = log_softmax(np.array([[8, 0], [0, 8], [0, 8], [0, 8]], np.float32))

    assert compare(reference, candidate, [0] * 4).agreement == 0.75


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_divergence_is_never_negative(seed):
    draw = np.random.default_rng(seed)
    reference, candidate = (log_softmax(draw.normal(scale=5, size=(3, 30)).astype(np.float32)) for _ in range(2))

    assert compare(reference, candidate, [0, 1, 2]).divergence >= -1e-6


def test_log_probabilities_of_large_logits_stay_finite():
    scores = log_softmax(np.array([[1000.0, 0.0]], np.float32))

    assert np.isfinite(scores).all()
    assert np.exp(scores).sum() == pytest.approx(1.0)


def test_the_standard_error_is_over_windows():
    quality = summarise([WindowFigures(d, 0.1, 0.9) for d in (1.0, 2.0, 3.0)])

    assert quality.divergence_error == pytest.approx(1 / math.sqrt(3))
    assert quality.perplexity_ratio == pytest.approx(math.exp(0.1))


def test_only_what_a_reader_sees_is_text():
    html = "<html><style>p {}</style><p>One\n  &amp; two</p><script>run()</script> three</html>"

    assert strip_html(html) == "One & two three"

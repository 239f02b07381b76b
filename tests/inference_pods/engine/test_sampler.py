import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference_pods.engine.sampler import Sampler, top_tokens
from inference_pods.engine.sequence import SamplingParams
from inference_pods.kernels.decoder import TokenScores


def scores_of(*logits):
    array = np.array(logits, np.float32)
    return TokenScores(int(array.argmax()), float(np.log(np.exp(array).sum())), array)


SCORES = scores_of(1.0, 3.0, 2.0, 0.0, -1.0)


def draws(params, count=400, scores=SCORES):
    sampler = Sampler(params)
    return [sampler.choose(scores, [0], 1) for _ in range(count)]


def test_without_wishes_the_best_token_is_taken():
    assert draws(SamplingParams(), 3) == [1, 1, 1]


def test_sampling_follows_the_probabilities():
    taken = np.bincount(draws(SamplingParams(do_sample=True, seed=1), 4000), minlength=5) / 4000
    expected = np.exp(SCORES.logits) / np.exp(SCORES.logits).sum()
    assert np.abs(taken - expected).max() < 0.03


@pytest.mark.parametrize(
    ("params", "allowed"),
    [
        (SamplingParams(top_k=1), {1}),
        (SamplingParams(top_k=2, seed=2), {1, 2}),
        (SamplingParams(top_p=0.6, seed=2), {1}),
        (SamplingParams(top_p=0.8, seed=2), {1, 2}),
        (SamplingParams(temperature=0.01, seed=2), {1}),
        (SamplingParams(typical_p=0.2, seed=2), {2}),  # 1.44 nats of surprise: nearest to the entropy of 0.97
    ],
)
def test_filters_imply_sampling_and_limit_the_candidates(params, allowed):
    assert set(draws(params)) == allowed


def test_the_same_seed_repeats_and_another_differs():
    first, again, other = (draws(SamplingParams(do_sample=True, seed=seed), 50) for seed in (7, 7, 8))
    assert first == again
    assert first != other


def test_a_seed_is_reported_only_when_it_mattered():
    assert Sampler(SamplingParams()).seed is None
    assert Sampler(SamplingParams(do_sample=True, seed=5)).seed == 5
    assert Sampler(SamplingParams(do_sample=True)).seed is not None


@pytest.mark.parametrize(
    ("params", "history", "prompt_tokens", "expected"),
    [
        (SamplingParams(repetition_penalty=2.0), [1], 1, 2),
        (SamplingParams(frequency_penalty=2.0), [0, 1], 1, 2),
        (SamplingParams(frequency_penalty=2.0), [1], 1, 1),
        (SamplingParams(presence_penalty=1.5), [0, 1, 1], 1, 2),
    ],
    ids=["repetition counts the prompt", "frequency", "frequency ignores the prompt", "presence"],
)
def test_penalties_turn_greedy_decoding_away_from_what_was_said(params, history, prompt_tokens, expected):
    assert Sampler(params).choose(SCORES, history, prompt_tokens) == expected


def test_top_tokens_are_ordered_with_the_models_own_logprobs():
    tokens = top_tokens(SCORES, 3)
    assert [token for token, _ in tokens] == [1, 2, 0]
    assert np.exp([logprob for _, logprob in tokens]).sum() < 1.0
    assert tokens[0][1] == pytest.approx(3.0 - SCORES.log_total)
    assert top_tokens(SCORES, 0) == []


@pytest.mark.parametrize(
    "params",
    [
        SamplingParams(do_sample=True, temperature=0.7, seed=3),
        SamplingParams(top_k=40, seed=3),
        SamplingParams(top_p=0.5, seed=3),
        SamplingParams(top_p=0.999, temperature=2.0, seed=3),
        SamplingParams(top_k=300, top_p=0.9, seed=3),
        SamplingParams(typical_p=0.6, seed=3),
    ],
    ids=str,
)
def test_on_a_wide_vocabulary_the_filters_keep_what_sorting_everything_would(params):
    logits = np.random.default_rng(0).normal(0, 3, 5000).astype(np.float32)
    scores = TokenScores(int(logits.argmax()), float(np.logaddexp.reduce(logits.astype(np.float64))), logits)
    allowed = allowed_by_sorting(logits.astype(np.float64), params)
    taken = draws(params, 300, scores)
    assert set(taken) <= allowed
    assert len(set(taken)) > min(10, len(allowed) // 2)


def allowed_by_sorting(logits, params):
    """The filters' definitions, written down plainly."""
    order = np.argsort(-logits, kind="stable")[: params.top_k or len(logits)]
    p = np.exp((logits[order] - logits.max()) / params.temperature)
    p /= p.sum()
    if params.top_p < 1.0:
        keep = np.concatenate([[True], p.cumsum()[:-1] < params.top_p])
        order, p = order[keep], p[keep] / p[keep].sum()
    if params.typical_p < 1.0:
        distance = np.abs(-np.log(p) + (p * np.log(p)).sum())
        nearest = np.argsort(distance, kind="stable")
        order = order[nearest[np.concatenate([[True], p[nearest].cumsum()[:-1] < params.typical_p])]]
    return set(order.tolist())


def test_penalties_leave_the_models_scores_as_they_are():
    logits = SCORES.logits.copy()
    Sampler(SamplingParams(repetition_penalty=1.5, frequency_penalty=1.0)).choose(SCORES, [1, 2], 1)
    assert np.array_equal(SCORES.logits, logits)


@pytest.mark.parametrize("temperature", [1e-50, 1e-30, 1e-5, 0.0])
def test_a_temperature_next_to_zero_is_greedy(temperature):
    sampler = Sampler(SamplingParams(do_sample=True, temperature=temperature, top_p=0.9))
    assert sampler.seed is None
    assert [sampler.choose(SCORES, [0], 1) for _ in range(3)] == [1, 1, 1]


@pytest.mark.parametrize("do_sample", [True, False])
@pytest.mark.parametrize("broken", [float("nan"), float("inf")])
def test_scores_that_are_not_numbers_after_the_penalties_choose_nothing(do_sample, broken):
    scores = TokenScores(1, 3.0, np.array([1.0, broken, 2.0], np.float32))
    with pytest.raises(ValueError, match="not numbers"):
        Sampler(SamplingParams(do_sample=do_sample, presence_penalty=1.0)).choose(scores, [0, 2], 1)


LIMITED = {"allow_nan": False, "allow_infinity": False}


@given(
    logits=st.lists(st.floats(-1e4, 1e4, width=32), min_size=1, max_size=40),
    temperature=st.floats(0.0, 100.0, exclude_min=True, **LIMITED),
    repetition_penalty=st.floats(0.1, 10.0, **LIMITED),
    top_k=st.integers(0, 50),
    top_p=st.floats(0.01, 1.0),
    typical_p=st.floats(0.01, 1.0),
    seed=st.integers(0, 2**64 - 1),
)
def test_whatever_the_bounds_allow_a_token_is_chosen_that_the_model_did_not_rule_out(logits, seed, **wishes):
    scores = TokenScores(int(np.argmax(logits)), 0.0, np.array([*logits, -np.inf], np.float32))
    params = SamplingParams(do_sample=True, seed=seed, **wishes)
    assert Sampler(params).choose(scores, [0], 1) < len(logits)

"""Greedy decoding against `transformers` on the same dequantised weights, and what permutation and tiers may change."""

from typing import ClassVar

import numpy as np
import pytest
import torch

from inference_pods.engine.block_manager import BlockManager
from inference_pods.engine.checkpoint import load_weights, read_shape
from inference_pods.engine.core import EngineCore
from inference_pods.engine.scheduler import Scheduler
from inference_pods.engine.sequence import GenerationRequest
from inference_pods.kernels.decoder import Chunk
from inference_pods.kernels.formats import BLOCK_TOKENS, Precision, TensorRole
from inference_pods.kernels.reference import dequantise
from tests.needed import need_module

pytestmark = [pytest.mark.timeout(240), pytest.mark.slow]

PROMPTS = (
    "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n",
    "The water cycle begins when the sun heats the surface of the sea. Then",
    "def fibonacci(n):\n    if n < 2:\n        return n\n",
    "1, 2, 3, 5, 8, 13,",
    "Once upon a time, in a village by the river, there lived a miller who had three daughters, and every morning",
)
NEW_TOKENS = 16
NO_ORACLE = "transformers is not installed (extra dev): our tokens are compared with no other implementation's"

WINDOWS = tuple(
    " ".join(window.split())
    for window in (
        """The old lighthouse had not been lit for thirty years, but the keeper's granddaughter still climbed its stairs
every evening. She liked to watch the fishing boats come home, one after another, with gulls circling above
their masts. On clear days she could see the mountains across the bay, blue and thin as paper, and she
wondered who lived there. Her grandfather had told her that the light once reached forty miles, far enough to
guide the grain ships from the south, and that on the night of the great storm he had not slept for three
days.""",
        """To replace the filter, switch the pump off at the mains and close both valves. Place a bucket under the
housing, then unscrew the lid counter-clockwise. Remove the old cartridge and rinse the housing with clean
water. Check the rubber seal for cracks and replace it if it is worn. Insert the new cartridge with the arrow
pointing in the direction of the flow, tighten the lid by hand, open the inlet valve first, and wait until the
air has escaped before you open the outlet valve and switch the pump on again.""",
    )
)


class StateDict:
    """Collects a checkpoint as fp32 tensors in the layout of `transformers`."""

    NAMES: ClassVar = {
        TensorRole.ATTN_NORM: "input_layernorm",
        TensorRole.FFN_NORM: "post_attention_layernorm",
        TensorRole.Q: "self_attn.q_proj",
        TensorRole.K: "self_attn.k_proj",
        TensorRole.V: "self_attn.v_proj",
        TensorRole.O: "self_attn.o_proj",
        TensorRole.GATE: "mlp.gate_proj",
        TensorRole.UP: "mlp.up_proj",
        TensorRole.DOWN: "mlp.down_proj",
    }

    def __init__(self):
        self.tensors = {}

    def load(self, role, layer, source, kind, rows, columns, row_map=None, column_map=None):
        weights = dequantise(torch.from_numpy(np.array(source)), kind, rows, columns)
        weights = weights if row_map is None else weights[torch.from_numpy(row_map.astype(np.int64))]
        weights = weights[:, torch.from_numpy(column_map.astype(np.int64))]
        if role is TensorRole.HEAD:
            self.tensors["model.embed_tokens.weight"] = self.tensors["lm_head.weight"] = weights
        elif role is TensorRole.OUTPUT_NORM:
            self.tensors["model.norm.weight"] = weights[0]
        else:
            name = f"model.layers.{layer}.{self.NAMES[role]}.weight"
            self.tensors[name] = weights[0] if rows == 1 else weights


@pytest.fixture(scope="module")
def oracle(model_file):
    """The implementation of `transformers`, nothing downloaded."""
    transformers = need_module("transformers", NO_ORACLE)
    shape = read_shape(model_file)
    weights = StateDict()
    load_weights(model_file, shape, weights, permutation_seed=0)
    config = transformers.LlamaConfig(
        vocab_size=shape.vocab,
        hidden_size=shape.dim,
        intermediate_size=shape.ffn,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        max_position_embeddings=8192,
        rms_norm_eps=shape.rms_eps,
        rope_parameters={"rope_type": "default", "rope_theta": shape.rope_base},
        tie_word_embeddings=True,
    )
    model = transformers.LlamaForCausalLM(config)
    model.load_state_dict(weights.tensors)
    return model.float().eval()


def greedy_reference(model, prompt_ids, count, eos_id):
    ids, past, new = torch.tensor([prompt_ids]), None, []
    with torch.inference_mode():
        while len(new) < count:
            output = model(input_ids=ids, past_key_values=past, use_cache=True)
            past, token = output.past_key_values, int(output.logits[0, -1].argmax())
            new.append(token)
            if token == eos_id:
                break
            ids = torch.tensor([[token]])
    return new


@pytest.fixture(scope="module")
def expected_tokens(oracle, tokenizer):
    """What `transformers` answers to each prompt."""
    return [greedy_reference(oracle, tokenizer.encode(p), NEW_TOKENS, tokenizer.eos_id) for p in PROMPTS]


def decode_joining(runner, tokenizer, prompts, step_tokens):
    """Greedy decoding of all prompts, each joining two steps after the one before; token ids per prompt."""
    core = EngineCore(runner, Scheduler(BlockManager(128, BLOCK_TOKENS), 4, step_tokens), tokenizer)
    generated = {index: [] for index in range(len(prompts))}
    step = 0
    while step < 2 * len(prompts) or not core.scheduler.is_idle:
        if step % 2 == 0 and step // 2 < len(prompts):
            ids = tuple(tokenizer.encode(prompts[step // 2]))
            core.add(step // 2, GenerationRequest(ids, NEW_TOKENS))
        for event in core.step().events:
            assert event.error is None
            generated[event.request_id].append(event.token.id)
        step += 1
        core.scheduler.check_integrity()
    return list(generated.values())


@pytest.mark.parametrize("precision", [Precision.FP32, Precision.FP16], ids=["fp32 KV", "fp16 weights and KV"])
def test_greedy_tokens_equal_transformers_alone_in_a_batch_and_joining_midway(
    expected_tokens, load_runner, tokenizer, precision
):
    runner = load_runner(precision)
    assert [decode_joining(runner, tokenizer, [prompt], 64)[0] for prompt in PROMPTS] == expected_tokens
    assert decode_joining(runner, tokenizer, PROMPTS, 64) == expected_tokens
    assert decode_joining(runner, tokenizer, PROMPTS, 7) == expected_tokens
    assert tokenizer.eos_id in expected_tokens[0]


def last_logits(runner, ids, count, level=0):
    """[count, vocab] logits of a text's last positions."""
    table = list(range(len(ids) // BLOCK_TOKENS + 1))
    first = len(ids) - count
    if first:
        runner.step([Chunk(ids[:first], 0, table, 0, level)])
    steps = ([Chunk([ids[p]], p, table, 1, level)] for p in range(first, len(ids)))
    return np.stack([runner.step(chunks)[0].logits.copy() for chunks in steps])


def test_fp32_logits_equal_transformers_to_rounding(oracle, load_runner, tokenizer):
    ids = tokenizer.encode(WINDOWS[0])[:64]
    with torch.inference_mode():
        expected = oracle(torch.tensor([ids])).logits[0, -16:].numpy()
    assert np.abs(last_logits(load_runner(Precision.FP32), ids, 16) - expected).max() < 1e-3


def test_permuting_channels_preserves_the_function(load_runner, tokenizer):
    ids = tokenizer.encode(WINDOWS[1])[:48]
    plain, permuted = (last_logits(load_runner(Precision.FP32, seed), ids, 16) for seed in (0, 7))
    assert 0 < np.abs(plain - permuted).max() < 1e-3


def mean_kl(reference, other):
    """Mean KL divergence in nats of [positions, vocab] logits."""
    p, q = (logits.astype(np.float64) for logits in (reference, other))
    p -= np.logaddexp.reduce(p, axis=1, keepdims=True)
    q -= np.logaddexp.reduce(q, axis=1, keepdims=True)
    return float((np.exp(p) * (p - q)).sum(axis=1).mean())


def test_16_bit_and_int8_are_nearly_full_quality_and_int4_really_rounds(load_runner, tokenizer, record_property):
    """Expected about 5e-5 (bf16), 2e-6 (fp16), .001 (int8) and .25 (int4); the second half of each window is scored."""
    scored = {precision: [] for precision in Precision if precision is not Precision.NESTED}
    for window in WINDOWS:
        ids = tokenizer.encode(window)
        for precision, logits in scored.items():
            logits.append(last_logits(load_runner(precision, 7), ids, len(ids) // 2))
    divergence = {}
    for precision in (p for p in scored if p is not Precision.FP32):
        per_window = [mean_kl(*pair) for pair in zip(scored[Precision.FP32], scored[precision], strict=True)]
        divergence[precision] = float(np.mean(per_window))
        record_property(f"kl_{precision}", divergence[precision])
        print(f"KL to full, {precision}: {divergence[precision]:.6f} nats, windows {np.round(per_window, 6)}")  # noqa: T201 - shown by pytest -s and -rP
    assert divergence[Precision.FP16] < 1e-5
    assert divergence[Precision.BF16] < 1e-3
    assert divergence[Precision.INT8] < 0.006
    assert 0.1 < divergence[Precision.INT4] < 0.45


def test_a_nested_model_is_as_good_as_int8_and_its_int4_level_equals_the_int4_tier(load_runner, tokenizer):
    """Expected about .0013 and .25: what dedicated tiers lose."""
    ids = tokenizer.encode(WINDOWS[0])
    full, int4, nested = (load_runner(precision, 7) for precision in (Precision.FP32, Precision.INT4, Precision.NESTED))
    expected = last_logits(full, ids, len(ids) // 2)
    assert [level.name for level in nested.levels] == ["int8", "int4"]
    divergence = mean_kl(expected, last_logits(nested, ids, len(ids) // 2, level=0))
    print(f"KL to full, nested int8: {divergence:.4f} nats")  # noqa: T201 - shown by pytest -s and -rP
    assert divergence < 0.003
    low_level = last_logits(nested, ids, len(ids) // 2, level=1)
    np.testing.assert_array_equal(low_level, last_logits(int4, ids, len(ids) // 2))


def test_without_permutation_int4_lies_on_the_files_own_grid(load_runner, tokenizer):
    ids = tokenizer.encode(WINDOWS[0])[:48]
    full, int4 = (last_logits(load_runner(p, 0), ids, 16) for p in (Precision.FP32, Precision.INT4))
    assert mean_kl(full, int4) < 1e-3

"""A small random llama checkpoint, as transformers saves it, against transformers itself and against GGUF."""

import json
import logging
import shutil

import numpy as np
import pytest
import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors

from inference_pods.engine.chat import ChatTemplate
from inference_pods.engine.checkpoint import context_length, open_model, read_shape
from inference_pods.engine.errors import LoadError, LoadReason
from inference_pods.engine.hf_llama import parse_config
from inference_pods.engine.model_runner import load_model
from inference_pods.engine.tokenizer import TextTokenizer
from inference_pods.engine.vocabulary import read_chat_template, read_gguf_vocabulary, read_vocabulary
from inference_pods.kernels.decoder import Chunk, DecoderLimits
from inference_pods.kernels.formats import Precision
from tests.needed import need_module

HEADS, KV_HEADS, HEAD_DIM = 4, 2, 32
LIMITS = DecoderLimits(max_rows=64, max_outputs=4, max_positions=128, kv_blocks=8, threads=1)
NO_ORACLE = "transformers is not installed (extra dev): our logits are compared with no other implementation's"
PROMPT = [7, 99, 12, 41, 3, 200, 5]


def build_tokenizer():
    """Every byte is a token, two merges, and special tokens around a text."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: number for number, token in enumerate([*alphabet, "Ġa", "th"])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[("Ġ", "a"), ("t", "h")]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken("<s>"), AddedToken("</s>"), AddedToken("<eot>")])
    tokenizer.add_tokens([AddedToken("naïve word")])
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 258)])
    return tokenizer


@pytest.fixture(scope="module")
def oracle():
    transformers = need_module("transformers", NO_ORACLE)
    torch.manual_seed(3)
    config = transformers.LlamaConfig(
        vocab_size=264,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=3,
        num_attention_heads=HEADS,
        num_key_value_heads=KV_HEADS,
        head_dim=HEAD_DIM,
        max_position_embeddings=128,
        rms_norm_eps=1e-5,
        rope_parameters={"rope_type": "default", "rope_theta": 5000.0},
        tie_word_embeddings=True,
        initializer_range=0.2,
        bos_token_id=258,
        eos_token_id=259,
    )
    return transformers.LlamaForCausalLM(config).eval()


def save(model, folder, **options):
    model.save_pretrained(folder, **options)
    build_tokenizer().save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"chat_template": "{{ bos_token }}{{ messages[0].content }}"})
    )
    return folder


@pytest.fixture(scope="module")
def folder(oracle, tmp_path_factory):
    return save(oracle, tmp_path_factory.mktemp("llama"))


def logits_of(path, ids, precision=Precision.FP32, seed=0):
    """[tokens, vocab] next-token scores of a text."""
    runner = load_model(open_model(path), LIMITS, precision, seed).runner
    return np.stack([runner.step([Chunk([ids[p]], p, [0, 1, 2, 3], 1)])[0].logits.copy() for p in range(len(ids))])


def test_logits_equal_transformers(oracle, folder):
    with torch.inference_mode():
        expected = oracle(torch.tensor([PROMPT])).logits[0].numpy()
    assert expected.std() > 0.5
    assert np.abs(logits_of(folder, PROMPT) - expected).max() < 1e-4


def test_greedy_tokens_equal_transformers_also_with_permuted_channels(oracle, folder):
    prompt = torch.tensor([PROMPT])
    expected = oracle.generate(
        prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=24, do_sample=False, eos_token_id=None,
        pad_token_id=0,
    )[0].tolist()  # fmt: skip
    for seed in (0, 7):
        runner = load_model(open_model(folder), LIMITS, Precision.FP32, seed).runner
        ids, table = list(PROMPT), [0, 1, 2, 3]
        chunk = Chunk(ids, 0, table, 1)
        while len(ids) < len(expected):
            ids = [*ids, runner.step([chunk])[0].best]
            chunk = Chunk(ids[-1:], len(ids) - 1, table, 1)
        assert ids == expected


def test_shards_give_the_same_logits(oracle, folder, tmp_path):
    save(oracle, tmp_path, max_shard_size="60KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 2
    assert np.array_equal(logits_of(tmp_path, PROMPT), logits_of(folder, PROMPT))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_16_bit_weights_give_the_logits_of_their_rounded_values(oracle, tmp_path, dtype):
    transformers = need_module("transformers", NO_ORACLE)
    rounded = transformers.LlamaForCausalLM(oracle.config).eval()
    rounded.load_state_dict({name: w.to(dtype).float() for name, w in oracle.state_dict().items()})
    stored = transformers.LlamaForCausalLM(oracle.config).to(dtype)
    stored.load_state_dict(rounded.state_dict())
    with torch.inference_mode():
        expected = rounded(torch.tensor([PROMPT])).logits[0].numpy()
    assert np.abs(logits_of(save(stored, tmp_path), PROMPT) - expected).max() < 1e-4


@pytest.fixture(scope="module")
def gguf_path(oracle, tmp_path_factory, write_gguf):
    """The same weights, Q and K rows in rotary pairs as llama.cpp's converter stores them."""

    def pairs(weights, heads):
        return weights.reshape(heads, 2, HEAD_DIM // 2, -1).transpose(1, 2).reshape(weights.shape)

    state = oracle.state_dict()
    tensors = {"token_embd": state["model.embed_tokens.weight"], "output_norm": state["model.norm.weight"]}
    names = {"attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm"}
    names |= {f"attn_{name}": f"self_attn.{name}_proj" for name in "qkv"} | {"attn_output": "self_attn.o_proj"}
    names |= {f"ffn_{name}": f"mlp.{name}_proj" for name in ("gate", "up", "down")}
    for layer in range(oracle.config.num_hidden_layers):
        for ours, theirs in names.items():
            weights = state[f"model.layers.{layer}.{theirs}.weight"]
            heads = {"attn_q": HEADS, "attn_k": KV_HEADS}.get(ours)
            tensors[f"blk.{layer}.{ours}"] = pairs(weights, heads) if heads else weights
    metadata = {
        "general.architecture": "llama", "llama.block_count": 3, "llama.embedding_length": 64,
        "llama.feed_forward_length": 96, "llama.attention.head_count": HEADS,
        "llama.attention.head_count_kv": KV_HEADS, "llama.rope.dimension_count": HEAD_DIM,
        "llama.context_length": 128, "llama.attention.layer_norm_rms_epsilon": 1e-5, "llama.rope.freq_base": 5000.0,
    }  # fmt: skip
    body = {f"{name}.weight": (list(w.shape[::-1]), 0, w.numpy().tobytes()) for name, w in tensors.items()}
    return write_gguf(tmp_path_factory.mktemp("gguf") / "tiny.gguf", metadata, body)


@pytest.mark.parametrize("precision", [Precision.FP32, Precision.INT8, Precision.INT4])
def test_both_formats_load_to_the_same_decoder(folder, gguf_path, precision):
    ours, theirs = open_model(folder), open_model(gguf_path)
    shapes = [read_shape(ours), read_shape(theirs)]
    assert shapes[0].rms_eps == pytest.approx(shapes[1].rms_eps)
    assert context_length(ours) == context_length(theirs) == 128
    difference = np.abs(logits_of(folder, PROMPT, precision, 5) - logits_of(gguf_path, PROMPT, precision, 5))
    assert difference.max() < 1e-5


def test_loading_tells_how_far_it_is(folder, caplog):
    caplog.set_level(logging.INFO)
    load_model(open_model(folder), LIMITS, Precision.INT8, 0)
    shares = [int(r.args[0]) for r in caplog.records if r.message.startswith("loading:")]
    assert 3 <= len(shares) <= 6
    assert shares == sorted(shares)
    assert shares[-1] >= 80


def test_the_tokenizer_is_that_of_its_file(folder):
    tokenizer = TextTokenizer(read_vocabulary(open_model(folder)))
    text = "that's a naïve word\N{DRAGON FACE}</s>"
    ids = tokenizer.encode(text)
    assert ids == build_tokenizer().encode(text, add_special_tokens=False).ids
    assert b"".join(tokenizer.token_bytes(token) for token in ids).decode() == text
    assert tokenizer.encode("a", add_special_tokens=True)[0] == 258
    assert (tokenizer.bos_token, tokenizer.eos_token, tokenizer.eos_ids) == ("<s>", "</s>", {259})
    assert [tokenizer.is_special(token) for token in (258, 260, 261)] == [True, True, False]
    assert (tokenizer.vocabulary_size, tokenizer.token_text(263)) == (264, "")


def test_the_chat_template_comes_from_its_own_file_or_from_the_tokenizers(folder, tmp_path):
    template = read_chat_template(open_model(folder))
    assert ChatTemplate(template, "<s>", "</s>").render([{"role": "user", "content": "Hi"}]) == "<s>Hi"
    copy = shutil.copytree(folder, tmp_path / "copy")
    (copy / "chat_template.jinja").write_text("{{ strftime_now('%Y') | length }}")
    assert ChatTemplate(read_chat_template(open_model(copy)), "", "").render([]) == "4"


def test_all_ends_of_a_turn_are_known(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "copy")
    (copy / "generation_config.json").write_text('{"eos_token_id": [259, 260]}')
    assert TextTokenizer(read_vocabulary(open_model(copy))).eos_ids == {259, 260}


@pytest.mark.parametrize(
    ("change", "reason", "words"),
    [
        ({"model_type": "mistral"}, LoadReason.UNSUPPORTED, "`model_type` = 'mistral'"),
        ({"auto_map": {"AutoModel": "modeling.py"}}, LoadReason.UNSUPPORTED, "never run"),
        ({"tie_word_embeddings": False}, LoadReason.UNSUPPORTED, "`tie_word_embeddings`"),
        ({"attention_bias": True}, LoadReason.UNSUPPORTED, "`attention_bias`"),
        ({"hidden_act": "gelu"}, LoadReason.UNSUPPORTED, "`hidden_act`"),
        ({"rope_scaling": {"type": "linear", "factor": 2}}, LoadReason.UNSUPPORTED, "scaled rotary"),
        ({"rope_parameters": {"rope_type": "llama3"}}, LoadReason.UNSUPPORTED, "scaled rotary"),
        ({"quantization_config": {"bits": 4}}, LoadReason.UNSUPPORTED, "`quantization_config`"),
        ({"hidden_size": 0}, LoadReason.CORRUPT, "`hidden_size`"),
        ({"num_hidden_layers": "many"}, LoadReason.CORRUPT, "`num_hidden_layers`"),
        ({"hidden_size": 2**32 - 64}, LoadReason.CORRUPT, "`hidden_size`"),
        ({"max_position_embeddings": 2**64}, LoadReason.CORRUPT, "`max_position_embeddings`"),
        ({"rope_parameters": {"rope_theta": "large"}}, LoadReason.UNSUPPORTED, "rope_theta"),
    ],
)
def test_what_the_decoder_does_not_compute_is_refused_by_name(folder, change, reason, words):
    config = json.loads((folder / "config.json").read_text()) | change
    with pytest.raises(LoadError) as caught:
        parse_config(config)
    assert caught.value.reason is reason
    assert words in caught.value.message


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda d: d["model"].update(type="Unigram"), "byte-level BPE"),
        (lambda d: d.update(decoder=None), "byte-level BPE"),
        (lambda d: d["model"].update(merges=[["no", "such"]]), "download it again"),
        (lambda d: d["model"]["vocab"].update(more=900), "do not belong together"),
    ],
    ids=["another model", "another decoder", "damaged", "another vocabulary"],
)
def test_a_tokenizer_that_does_not_fit_is_refused(folder, tmp_path, damage, words):
    copy = shutil.copytree(folder, tmp_path / "copy")
    document = json.loads((copy / "tokenizer.json").read_text())
    damage(document)
    (copy / "tokenizer.json").write_text(json.dumps(document))
    with pytest.raises(LoadError, match=words):
        read_vocabulary(open_model(copy))


def test_a_missing_tensor_and_a_wrong_shape_are_named(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "copy")
    config = json.loads((copy / "config.json").read_text())
    for change, words in (
        ({"num_hidden_layers": 4}, r"model\.layers\.3"),
        ({"intermediate_size": 128}, "expected"),
        ({"vocab_size": 2**20 + 1}, "vocab 1048577"),
        ({"rope_parameters": {"rope_theta": float("inf")}}, "rope_base inf"),
    ):
        (copy / "config.json").write_text(json.dumps(config | change))
        with pytest.raises(LoadError, match=words):
            load_model(open_model(copy), LIMITS, Precision.INT8, 0)


def test_another_kind_of_gguf_tokenizer_is_unsupported():
    with pytest.raises(LoadError, match="not supported"):
        read_gguf_vocabulary({"tokenizer.ggml.model": "llama"})


@pytest.mark.parametrize("field", ["bos_token_id", "eos_token_id"])
@pytest.mark.parametrize("number", [-1, 264])
def test_a_special_token_outside_of_the_vocabulary_is_corrupt_and_named(folder, tmp_path, field, number):
    copy = shutil.copytree(folder, tmp_path / "copy")
    (copy / "generation_config.json").unlink(missing_ok=True)
    config = json.loads((copy / "config.json").read_text()) | {field: number}
    (copy / "config.json").write_text(json.dumps(config))
    with pytest.raises(LoadError, match=field) as caught:
        read_vocabulary(open_model(copy))
    assert caught.value.reason is LoadReason.CORRUPT


def test_a_vocabulary_too_large_for_any_model_is_refused_before_it_is_listed(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "copy")
    config = json.loads((copy / "config.json").read_text()) | {"vocab_size": 2**20 + 1}
    (copy / "config.json").write_text(json.dumps(config))
    with pytest.raises(LoadError, match="vocab 1048577"):
        read_vocabulary(open_model(copy))

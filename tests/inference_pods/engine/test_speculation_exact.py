"""Drafting with the real two-level weights: the same tokens as the top level alone, most drafts accepted."""

import pytest

from inference_pods.engine.block_manager import BlockManager
from inference_pods.engine.core import EngineCore
from inference_pods.engine.scheduler import Scheduler
from inference_pods.engine.sequence import GenerationRequest
from inference_pods.engine.speculation import DraftSettings, SpeculationGate
from inference_pods.kernels.formats import BLOCK_TOKENS, Precision

pytestmark = [pytest.mark.timeout(240), pytest.mark.slow]

PROMPTS = (
    "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n",
    "The water cycle begins when the sun heats the surface of the sea. Then",
    "1, 2, 3, 5, 8, 13,",
)


class Always(SpeculationGate):
    def wants_drafts(self, sequences, drafting):
        super().wants_drafts(sequences, drafting)
        return True


def generate(runner, tokenizer, drafts, level=0):
    scheduler = Scheduler(BlockManager(128, BLOCK_TOKENS), 4, 64, drafts=drafts)
    scheduler.gate = Always()
    core = EngineCore(runner, scheduler, tokenizer)
    for number, prompt in enumerate(PROMPTS):
        core.add(number, GenerationRequest(tuple(tokenizer.encode(prompt)), 24, level=level))
    tokens = {number: [] for number in range(len(PROMPTS))}
    while not scheduler.is_idle:
        for event in core.step().events:
            tokens[event.request_id].append(event.token.id)
    scheduler.check_integrity()
    return list(tokens.values()), scheduler.stats


def test_int4_drafts_for_int8_and_the_tokens_are_int8s(load_runner, tokenizer):
    runner = load_runner(Precision.NESTED, 7)
    names = [level.name for level in runner.levels]
    assert names == ["int8", "int4"]
    expected, _ = generate(runner, tokenizer, None)
    drafted, stats = generate(runner, tokenizer, DraftSettings(names.index("int4"), 4))
    low, _ = generate(runner, tokenizer, None, level=1)
    assert drafted == expected
    assert low != expected, "the lower level alone says something else, or this test shows nothing"
    assert 0.4 < stats.accepted_tokens / stats.draft_tokens < 1

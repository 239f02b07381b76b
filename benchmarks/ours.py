"""Our side of the engine benchmark: bare steps of the compiled decoder, no scheduler, HTTP or sampling.

Each step computes the scores of all new tokens over the whole vocabulary and the best one, as the server's steps do.
"""

from __future__ import annotations

import random
import time
from collections.abc import Sequence

from benchmarks.peer import SOURCE
from benchmarks.workload import BATCHES, PREFILL, PREFILL_TOKENS, Speeds, Workload, decode_name
from inference_pods.engine.gguf import GgufFile
from inference_pods.engine.model_runner import load_model
from inference_pods.engine.source import resolve_source
from inference_pods.kernels.decoder import Chunk, Decoder, DecoderLimits
from inference_pods.kernels.formats import BLOCK_TOKENS, Precision

_VOCABULARY = 49_000  # tokens below this are ordinary text
PERMUTATION_SEED = 1  # moves the weights off the file's own int4 grid, as quality is measured


class BareEngine:
    """One precision's decoder with a fixed batch of sequences in its KV cache."""

    def __init__(self, precision: Precision, workload: Workload) -> None:
        self._workload = workload
        self._sequence_blocks = -(-(workload.context + workload.new_tokens) // BLOCK_TOKENS)
        prefill_blocks = PREFILL_TOKENS // BLOCK_TOKENS
        batch_blocks = max(BATCHES) * self._sequence_blocks
        limits = DecoderLimits(
            max_rows=PREFILL_TOKENS, max_outputs=max(BATCHES), max_positions=1024,
            kv_blocks=batch_blocks + prefill_blocks, threads=workload.threads,
            kv_precision=precision.kv,  # as the engine has them
        )  # fmt: skip
        model = load_model(GgufFile(resolve_source(SOURCE)), limits, precision, PERMUTATION_SEED)
        if not isinstance(model.runner, Decoder):
            raise SystemExit("no compiled kernels here (see the warning above): nothing to compare")
        self.decoder = model.runner
        self._prefill_table = list(range(batch_blocks, batch_blocks + prefill_blocks))
        self._random = random.Random(1)
        self._fill_contexts()

    def _tokens(self, count: int) -> list[int]:
        return [self._random.randrange(_VOCABULARY) for _ in range(count)]

    def _table(self, sequence: int) -> list[int]:
        first = sequence * self._sequence_blocks
        return list(range(first, first + self._sequence_blocks))

    def _fill_contexts(self) -> None:
        for sequence in range(max(BATCHES)):
            self.decoder.step([Chunk(self._tokens(self._workload.context), 0, self._table(sequence), 0)])

    def measure(self, level: int = 0) -> Speeds:
        """Mean tokens/s of every measure, each after one unmeasured step."""
        speeds = {decode_name(batch): self._decode(batch, level) for batch in BATCHES}
        speeds[PREFILL] = self._prefill(level)
        return speeds

    def _decode(self, batch: int, level: int) -> float:
        """Mean over `new_tokens` steps."""
        tables = [self._table(sequence) for sequence in range(batch)]
        self._run_step(tables, 0, level)
        started = time.perf_counter()
        for step in range(self._workload.new_tokens):
            self._run_step(tables, step, level)
        return batch * self._workload.new_tokens / (time.perf_counter() - started)

    def _run_step(self, tables: Sequence[list[int]], step: int, level: int) -> None:
        position = self._workload.context + step
        self.decoder.step([Chunk(self._tokens(1), position, table, 1, level) for table in tables])

    def _prefill(self, level: int) -> float:
        self._run_prefill(level)
        started = time.perf_counter()
        for _ in range(self._workload.prefills):
            self._run_prefill(level)
        return self._workload.prefills * PREFILL_TOKENS / (time.perf_counter() - started)

    def _run_prefill(self, level: int) -> None:
        self.decoder.step([Chunk(self._tokens(PREFILL_TOKENS), 0, self._prefill_table, 1, level)])

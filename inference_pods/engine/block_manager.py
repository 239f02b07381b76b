"""Hands out the blocks of the KV cache. Lists and ints only: knows no tensors, no requests, no policy."""

from __future__ import annotations

from collections import deque


class BlockManager:
    """A pool of equal blocks of `block_tokens` tokens; each block belongs to one table or is free."""

    def __init__(self, total_blocks: int, block_tokens: int) -> None:
        self.total_blocks = total_blocks
        self.block_tokens = block_tokens
        self._free = deque(range(total_blocks))

    @property
    def used_blocks(self) -> int:
        return self.total_blocks - len(self._free)

    def missing_blocks(self, table: list[int], tokens: int) -> int:
        """Blocks that `table` lacks to cover `tokens` tokens."""
        return max(0, -(-tokens // self.block_tokens) - len(table))

    def can_allocate(self, table: list[int], tokens: int) -> bool:
        return self.missing_blocks(table, tokens) <= len(self._free)

    def allocate(self, table: list[int], tokens: int) -> None:
        """Extends `table` in place until it covers `tokens` tokens; ask can_allocate first."""
        missing = self.missing_blocks(table, tokens)
        table.extend(self._free.popleft() for _ in range(missing))

    def deallocate(self, table: list[int]) -> None:
        """Takes all blocks back and empties `table`."""
        self._free.extend(table)
        table.clear()

    def check_integrity(self, tables: list[list[int]]) -> None:
        """Raises RuntimeError if a block is lost, shared or counted twice, given all live tables."""
        seen = sorted([*self._free, *(block for table in tables for block in table)])
        if seen != list(range(self.total_blocks)):
            raise RuntimeError(f"KV blocks are inconsistent: {len(seen)} seen, {self.total_blocks} exist")

"""Hands out the blocks of the KV cache, and finds full ones to share. Lists and ints only: no tensors, no policy.

A full block may be published under a key that names its tokens and everything before them; a later table with the same
beginning shares it. Only full blocks are ever shared and full blocks are never written again, so nothing needs copying.
A published block that no table holds stays reusable until the pool needs it, least recently used first.
"""

from __future__ import annotations

from array import array
from collections import Counter, OrderedDict, deque
from collections.abc import Sequence as ReadOnlyList
from hashlib import blake2b

_KEY_BYTES = 16
ROOT_KEY = bytes(_KEY_BYTES)


def chain_key(parent: bytes, level: int, token_ids: list[int]) -> bytes:
    """Key of a full block: its tokens, the level that computed them, and (through `parent`) all that is before.

    The level is part of it because keys and values of another level are close, not equal: with them a greedy answer
    would depend on who asked before. A cryptographic hash, so that no client can craft a prompt that hits a block of
    other tokens.
    """
    digest = blake2b(parent, digest_size=_KEY_BYTES)
    digest.update(array("q", (level, *token_ids)).tobytes())
    return digest.digest()


class IntegrityError(RuntimeError):
    """The books of the block pool contradict the tables; the message has the figures."""


class BlockManager:
    """A pool of equal blocks of `block_tokens` tokens; each is free, cached (published, unheld) or held by tables."""

    def __init__(self, total_blocks: int, block_tokens: int, prefix_cache: bool = True) -> None:
        self.total_blocks = total_blocks
        self.block_tokens = block_tokens
        self.prefix_cache = prefix_cache
        self.reset()

    def reset(self) -> None:
        """Forgets everything; only for a pool that no table holds blocks of."""
        self._free = deque(range(self.total_blocks))
        self._cached: OrderedDict[int, None] = OrderedDict()
        self._holders = [0] * self.total_blocks
        self._key_of: dict[int, bytes] = {}
        self._block_of: dict[bytes, int] = {}

    @property
    def free_blocks(self) -> int:
        """Blocks that can be handed out: empty ones and cached ones."""
        return len(self._free) + len(self._cached)

    @property
    def used_blocks(self) -> int:
        """Blocks that some table holds."""
        return self.total_blocks - self.free_blocks

    def missing_blocks(self, table: list[int], tokens: int) -> int:
        """Blocks that `table` lacks to cover `tokens` tokens."""
        return max(0, -(-tokens // self.block_tokens) - len(table))

    def can_allocate(self, table: list[int], tokens: int, shared: ReadOnlyList[int] = ()) -> bool:
        """Whether `table` can be extended to `tokens` tokens, after taking the blocks of match() in `shared`."""
        missing = self.missing_blocks(table, tokens) - len(shared)
        return missing <= self.free_blocks - sum(block in self._cached for block in shared)

    def allocate(self, table: list[int], tokens: int) -> None:
        """Extends `table` in place until it covers `tokens` tokens; ask can_allocate first."""
        table.extend(self._take() for _ in range(self.missing_blocks(table, tokens)))

    def deallocate(self, table: list[int]) -> None:
        """Gives up all blocks of `table` and empties it; of a chain the last block will be evicted first."""
        for block in reversed(table):
            self._holders[block] -= 1
            if self._holders[block] == 0:
                self._shelve(block)
        table.clear()

    def match(self, keys: list[bytes]) -> list[int]:
        """Blocks of the longest published beginning of the chain `keys`; take them with share()."""
        blocks: list[int] = []
        for key in keys:
            if (block := self._block_of.get(key)) is None:
                break
            blocks.append(block)
        return blocks

    def share(self, table: list[int], blocks: list[int]) -> None:
        """Appends published blocks to `table`."""
        for block in blocks:
            self._cached.pop(block, None)
            self._holders[block] += 1
        table.extend(blocks)

    def publish(self, block: int, key: bytes) -> None:
        """Offers a held full block for sharing; a twin that is already known keeps the key."""
        if self.prefix_cache and key not in self._block_of and block not in self._key_of:
            self._block_of[key] = block
            self._key_of[block] = key

    def withdraw(self, table: list[int]) -> None:
        """Takes the offer of all blocks of `table` back; tables that hold them already keep them."""
        for block in table:
            if (key := self._key_of.pop(block, None)) is not None:
                del self._block_of[key]

    def _take(self) -> int:
        if self._free:
            block = self._free.popleft()
        else:
            block, _ = self._cached.popitem(last=False)
            del self._block_of[self._key_of.pop(block)]
        self._holders[block] = 1
        return block

    def _shelve(self, block: int) -> None:
        if block in self._key_of:
            self._cached[block] = None
        else:
            self._free.append(block)

    def check_integrity(self, tables: list[list[int]]) -> None:
        """Raises IntegrityError if a block is lost, in two places, or held by another number of tables than counted."""
        holders = Counter(block for table in tables for block in table)
        seen = sorted([*self._free, *self._cached, *holders])
        if seen != list(range(self.total_blocks)):
            raise IntegrityError(
                f"KV blocks are inconsistent: {len(self._free)} free, {len(self._cached)} cached and {len(holders)} "
                f"held make {len(set(seen))} different ones of {self.total_blocks}"
            )
        wrong = [block for block, count in enumerate(self._holders) if count != holders[block]]
        if wrong:
            raise IntegrityError(f"KV blocks are inconsistent: the holders of {len(wrong)} blocks are miscounted")
        if {key: block for block, key in self._key_of.items()} != self._block_of or not self._cached.keys() <= (
            self._key_of.keys()
        ):
            raise IntegrityError("KV blocks are inconsistent: published keys and blocks do not match")

import pytest

from inference_pods.engine.block_manager import ROOT_KEY, BlockManager, IntegrityError, chain_key


def chain(*tokens, level=0, size=4):
    keys = [ROOT_KEY]
    for start in range(0, len(tokens), size):
        keys.append(chain_key(keys[-1], level, list(tokens[start : start + size])))
    return keys[1:]


def published(blocks, keys):
    """A table whose blocks are published under the keys."""
    table = []
    blocks.allocate(table, len(keys) * blocks.block_tokens)
    for block, key in zip(table, keys, strict=True):
        blocks.publish(block, key)
    return table


def test_a_key_names_tokens_level_and_everything_before():
    keys = {
        chain(1, 2, 3, 4, 5, 6, 7, 8)[1],
        chain(1, 2, 3, 9, 5, 6, 7, 8)[1],
        chain(1, 2, 3, 4, 5, 6, 7, 8, level=1)[1],
        chain(5, 6, 7, 8)[0],
    }
    assert len(keys) == 4
    assert chain(1, 2, 3, 4) == chain(1, 2, 3, 4)


def test_a_lost_or_shared_block_is_found():
    blocks = BlockManager(4, 4)
    table = []
    blocks.allocate(table, 8)
    blocks.check_integrity([table])
    with pytest.raises(IntegrityError, match="2 different ones of 4"):
        blocks.check_integrity([])
    with pytest.raises(IntegrityError, match="miscounted"):
        blocks.check_integrity([table, table[:1]])


def test_a_shared_block_is_free_only_when_its_last_holder_gives_it_up():
    blocks = BlockManager(4, 4)
    keys = chain(*range(8))
    first, second = published(blocks, keys), []
    blocks.share(second, blocks.match(keys))
    assert second == first
    blocks.deallocate(first)
    assert blocks.used_blocks == 2
    blocks.check_integrity([second])
    blocks.deallocate(second)
    assert blocks.used_blocks == 0
    blocks.check_integrity([])


def test_the_least_recently_used_is_evicted_first_and_of_a_chain_its_end():
    blocks = BlockManager(4, 4)
    old, new = chain(*range(8)), chain(*range(50, 58))
    for keys in (old, new):
        blocks.deallocate(published(blocks, keys))
    assert blocks.free_blocks == 4
    table = []
    blocks.allocate(table, 4)
    assert (len(blocks.match(old)), len(blocks.match(new))) == (1, 2)
    blocks.allocate(table, 12)
    assert (len(blocks.match(old)), len(blocks.match(new))) == (0, 1)
    blocks.check_integrity([table])


def test_cached_blocks_that_are_about_to_be_shared_do_not_count_as_room():
    blocks = BlockManager(3, 4)
    keys = chain(*range(8))
    blocks.deallocate(published(blocks, keys))
    shared = blocks.match(keys)
    assert blocks.can_allocate([], 12, shared)
    assert not blocks.can_allocate([], 16, shared)


def test_of_twins_the_first_keeps_the_key():
    blocks = BlockManager(4, 4)
    keys = chain(*range(4))
    first, second = published(blocks, keys), published(blocks, keys)
    assert blocks.match(keys) == first == [0]
    blocks.deallocate(first)
    blocks.deallocate(second)
    blocks.check_integrity([])
    assert blocks.match(keys) == [0]


def test_withdrawn_blocks_are_not_found_and_become_empty_ones():
    blocks = BlockManager(4, 4)
    keys = chain(*range(8))
    table = published(blocks, keys)
    blocks.withdraw(table)
    assert blocks.match(keys) == []
    blocks.deallocate(table)
    blocks.check_integrity([])

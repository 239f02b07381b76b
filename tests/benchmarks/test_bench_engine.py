import pytest

from benchmarks.bench_engine import choose_engines
from benchmarks.bench_http import TIERS, choose_tiers


@pytest.mark.parametrize(
    ("names", "engines"),
    [
        ("int8", ["int8"]),
        ("int4,fp32", ["fp32", "int4"]),
        ("nested int8", ["int8", "nested"]),
        (",".join(tier.name for tier in TIERS), ["fp32", "bf16", "int8", "int4", "nested"]),
    ],
)
def test_a_nested_level_needs_the_dedicated_tier_beside_it(names, engines):
    assert choose_engines(choose_tiers(names)) == engines

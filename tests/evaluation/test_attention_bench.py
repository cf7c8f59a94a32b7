"""The costs of the connection types: what is timed, fitted and drawn. No time is asserted."""

import pytest
import torch

from canvas_robot.evaluation.attention_bench import (
    attention_costs,
    growth_exponent,
    pair_schema,
    plot_costs,
)
from canvas_robot.schema import ATTENTION_TYPES, compile_plan

pytestmark = pytest.mark.usefixtures("little_to_collect")


@pytest.mark.parametrize("rows", [8, 16, 32, 256, 512, 8192])
@pytest.mark.parametrize("fn", ATTENTION_TYPES)
def test_the_timed_schema_has_as_many_rows_on_each_side(rows, fn):
    schema = pair_schema(rows, fn, width=8)
    assert [schema.layout.region_numel(name) for name in "ab"] == [rows, rows]
    assert len(compile_plan(schema).edges) == (fn not in ("cross_attention", "none"))


@pytest.mark.parametrize("rows", [0, 4, 100])
def test_other_sizes_are_refused(rows):
    with pytest.raises(ValueError, match=f"sizes: expected powers of two >= 8, got {rows}"):
        pair_schema(rows, "copy", width=8)


@pytest.mark.parametrize("exponent", [0.0, 1.0, 2.0])
def test_the_exponent_is_the_slope_between_1024_and_8192(exponent):
    sizes = [256, 1024, 2048, 8192, 16384]
    times = [9.9, *(3 * (n / 1024) ** exponent for n in sizes[1:4]), 9.9]
    assert growth_exponent(sizes, times) == pytest.approx(exponent)


def test_one_size_has_no_exponent():
    assert growth_exponent([256, 512, 1024], [1.0, 2.0, 3.0]) is None


@pytest.fixture(scope="module")
def timed():
    return attention_costs([8, 16], ["copy", "none", "rwkv"], width=8, heads=2, repeats=1)


def test_each_type_has_a_time_for_each_size_its_expected_cost_and_the_conditions(timed):
    assert list(timed["ms"]) == ["copy", "none", "rwkv"]
    assert all(len(times) == 2 and min(times) > 0 for times in timed["ms"].values())
    assert timed["expected"] == {"copy": "O(N)", "none": "0", "rwkv": "O(N)"}
    assert timed["exponent"] == {"copy": None, "none": None, "rwkv": None}
    assert (timed["width"], timed["heads"], timed["threads"], timed["repeats"]) == (8, 2, 1, 1)


def test_torch_gets_its_threads_back():
    before = torch.get_num_threads()
    attention_costs([8], ["none"], width=8, heads=2, threads=before + 1, repeats=1)
    assert torch.get_num_threads() == before


@pytest.mark.parametrize("ending", ["png", "svg"])
def test_a_picture_of_all_types_or_of_a_few_is_written(ending, timed, tmp_path):
    sizes = [256, 1024, 8192]
    everything = timed | {
        "sizes": sizes,
        "ms": {name: [1.0, 2.0, 20.0] for name in ATTENTION_TYPES},
        "exponent": dict.fromkeys(ATTENTION_TYPES, 1.1),
        "expected": {name: kind.cost for name, kind in ATTENTION_TYPES.items()},
    }
    for result in (timed, everything):
        plot_costs(result, tmp_path / f"costs.{ending}")
        assert (tmp_path / f"costs.{ending}").stat().st_size > 5_000

"""Laws of the bench's parts: the same work on both sides, and what is missing is named."""

import pytest

from canvas_robot.evaluation import canvas_bench, dispatcher_bench
from canvas_robot.evaluation.canvas_bench import (
    attention_and_masked,
    attention_figures,
    block_figures,
    mask_figures,
    require_other,
    striped_schema,
)

SMALL = (2, 4, 4, 2)
pytestmark = pytest.mark.usefixtures("little_to_collect")


@pytest.mark.parametrize("topology", canvas_bench.TOPOLOGIES)
def test_masks_are_timed_where_both_make_the_same(monkeypatch, topology):
    other = pytest.importorskip("canvas_engineering", reason="extra bench")
    monkeypatch.setattr(canvas_bench, "MEDIUM", SMALL)
    figures = mask_figures(other, topology)
    assert figures["ratio_first"] == pytest.approx(
        figures["theirs_ms"] / figures["first_ms"], rel=1e-6
    )
    monkeypatch.setattr(other.CanvasTopology, "to_attention_mask", lambda self, layout: None)
    with pytest.raises((RuntimeError, TypeError)):
        mask_figures(other, topology)


def test_the_block_form_of_the_large_canvas_has_a_group_for_each_step_and_little_memory():
    figures = block_figures("causal_temporal")
    assert figures["groups"] == 16 * 32
    assert 0 < figures["peak_mib"] < 4
    assert block_figures("dense")["groups"] == 1


def test_the_layer_and_the_masked_attention_compute_the_same():
    import torch

    schema = striped_schema(SMALL, "causal_temporal", d_model=16)
    ours, masked = attention_and_masked(schema, n_heads=2)
    x = torch.randn(1, schema.layout.num_positions, 16)
    torch.testing.assert_close(ours(x), masked(x))
    assert attention_figures(schema, 2, runs=2)["ratio_to_masked_sdpa"] > 0


def test_a_library_that_is_missing_is_named_with_the_command_that_brings_it(monkeypatch, tmp_path):
    monkeypatch.setattr(canvas_bench, "version", lambda name: "0.4.0")
    with pytest.raises(RuntimeError) as error:
        require_other()
    assert str(error.value) == (
        "canvas-engineering: expected version 0.1.0 beside ours, found 0.4.0; "
        "run: pip install --no-deps canvas-engineering==0.1.0"
    )
    with pytest.raises(RuntimeError) as error:
        dispatcher_bench.bench_dispatcher(tmp_path, threads=1, runs=1)
    assert str(error.value) == (
        f"{tmp_path}: expected canvas-engineering 0.5.0 there; run: "
        f"pip install --no-deps --target {tmp_path} canvas-engineering==0.5.0"
    )

"""Laws of memory: the table is what is really held; frozen weights cost their own bytes only."""

from itertools import chain

import pytest
import torch
from diffusers import CogVideoXTransformer3DModel
from torch.profiler import ProfilerActivity, profile

from canvas_robot.backbone import memory
from canvas_robot.backbone.byte_weights import quantise
from canvas_robot.backbone.configuration import BackboneConfiguration
from canvas_robot.backbone.graft import graft
from canvas_robot.backbone.loading import load_backbone
from canvas_robot.backbone.memory import (
    BackboneMemoryError,
    MemoryRow,
    cache_rows,
    format_table,
    free_memory,
    memory_table,
    require_memory,
    weight_rows,
)
from canvas_robot.backbone.sources import named_spec
from canvas_robot.canvas.attention.residual_edges import ResidualEdges
from canvas_robot.policy.runner import PlanRunner
from canvas_robot.policy.ticks import TickRunner
from canvas_robot.schema import (
    CanvasLayout,
    CanvasSchema,
    CanvasTopology,
    Connection,
    RegionSpec,
    compile_plan,
)
from canvas_robot.schema.edge_options import EdgeOptions

GB = 1_000_000_000


def configuration(name: str) -> BackboneConfiguration:
    return BackboneConfiguration.from_spec(named_spec(name), name)


def rows_schema(rows: int, width: int = 128) -> CanvasSchema:
    """One region of so many rows."""
    layout = CanvasLayout(1, 1, rows, width, {"r": RegionSpec((0, 1, 0, 1, 0, rows))})
    return CanvasSchema(layout, CanvasTopology([Connection("r", "r")]))


def by_name(rows) -> dict[str, int]:
    return {row.what: row.bytes for row in rows}


def held(tensors) -> int:
    return sum(tensor.numel() * tensor.itemsize for tensor in tensors)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The tiny backbone in diffusers' layout."""
    folder, tiny = tmp_path_factory.mktemp("backbone"), load_backbone("tiny")
    for part in ("transformer", "vae", "text_encoder", "tokenizer"):
        getattr(tiny, part).save_pretrained(folder / part)
    return folder


@pytest.mark.parametrize(
    "dtype, int8",
    [(torch.float32, False), (torch.float32, True), (torch.bfloat16, False),
     (torch.bfloat16, True), (torch.float16, False)],
)  # fmt: skip
def test_the_weights_of_the_table_are_those_of_the_loaded_parts_to_the_byte(folder, dtype, int8):
    for source in ("tiny", str(folder)):
        backbone = load_backbone(source, dtype, int8=int8)
        rows = by_name(weight_rows(backbone.configuration, dtype, int8))
        for part in ("transformer", "vae", "text_encoder"):
            module = getattr(backbone, part)
            size = held(chain(module.parameters(), module.buffers()))
            assert rows[f"{part} weights"] == size, part


def test_without_a_text_encoder_it_is_not_counted():
    tiny = configuration("tiny")
    all_parts, without = weight_rows(tiny, torch.float32), weight_rows(
        tiny, torch.float32, text_encoder=False
    )  # fmt: skip
    assert without == all_parts[:2]


@pytest.mark.parametrize(
    "name, loops, gigabytes",
    [
        ("cogvideox_2b_random", 1, 0.347),
        ("cogvideox_2b_random", 3, 1.041),
        ("cogvideox_5b_random", 3, 2.332),
    ],
)
def test_keys_and_values_take_what_the_design_counts(name, loops, gigabytes):
    rows = by_name(memory_table(configuration(name), rows_schema(1506), loops=loops))
    assert rows["keys and values"] == pytest.approx(gigabytes * GB, abs=0.5e6)


def test_every_row_grows_with_what_it_counts():
    tiny = configuration("tiny")
    plain = by_name(memory_table(tiny, rows_schema(100), loops=2))
    doubled = by_name(memory_table(tiny, rows_schema(100), loops=2, batch=2))
    assert plain["keys and values"] == 2 * 4 * 2 * 100 * 128 * 2
    assert doubled["keys and values"] == 2 * plain["keys and values"]
    assert doubled["tokens in and out"] == 2 * plain["tokens in and out"]
    activations = "activations of one pass, about"
    assert doubled[activations] == 2 * plain[activations] > 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("sliced", [False, True])
@pytest.mark.parametrize("fn", ["cross_attention", "perceiver", "local_attention", "none"])
def test_the_caches_of_the_table_are_a_runners_and_its_edges_the_models(fn, sliced, batch, dtype):
    """To the byte."""
    regions = {
        "slow": RegionSpec((0, 2, 0, 5, 0, 8), period=2),
        "fast": RegionSpec((0, 2, 5, 6, 0, 5)),
    }
    connections = [Connection("slow", "slow"), Connection("fast", "slow"),
                   Connection("fast", "fast", fn=fn)]  # fmt: skip
    schema = CanvasSchema(CanvasLayout(2, 6, 8, 128, regions), CanvasTopology(connections))
    tiny = load_backbone("tiny", dtype, text_encoder=False)
    graft(tiny.transformer, 2)
    plan = compile_plan(schema, loops=2)
    edges = [
        ResidualEdges(plan, schema.layout, 128, 4, EdgeOptions())
        for _ in (tiny.transformer.transformer_blocks if plan.edges else ())
    ]
    assert bool(edges) == (fn in ("perceiver", "local_attention"))
    runner = PlanRunner(tiny.transformer, plan, edges).eval()
    ticks = TickRunner(runner, "sliced" if sliced else "inline", batch=batch)
    caches = cache_rows(tiny.configuration, plan, batch, dtype, sliced)
    assert sum(row.bytes for row in caches) == ticks.nbytes
    table = memory_table(tiny.configuration, schema, 2, batch, dtype, sliced)
    assert set(caches) < set(table)
    assert by_name(table).get("residual edges, float32", 0) == sum(
        held(chain(edge.parameters(), edge.buffers())) for edge in edges
    )


def test_slices_without_a_slow_region_take_no_second_half():
    tiny, plan = configuration("tiny"), compile_plan(rows_schema(10), loops=1)
    assert cache_rows(tiny, plan, sliced=True) == cache_rows(tiny, plan)


def test_the_loop_parameters_are_those_of_the_graft():
    backbone = load_backbone("tiny")
    looped = graft(backbone.transformer, 3)
    rows = by_name(memory_table(backbone.configuration, rows_schema(10), loops=3))
    assert rows["loop parameters, float32"] == 4 * sum(b.trainable_params() for b in looped)


@pytest.mark.parametrize("rotary", [False, True])
def test_the_activations_are_about_those_of_one_pass(rotary):
    transformer = CogVideoXTransformer3DModel(
        num_attention_heads=2, attention_head_dim=64, num_layers=2, in_channels=4, out_channels=4,
        time_embed_dim=16, text_embed_dim=32, max_text_seq_length=20, sample_width=32,
        sample_height=32, sample_frames=9, use_rotary_positional_embeddings=rotary,
    ).eval()  # fmt: skip
    n_rows = 20 + 3 * 256
    inputs = {
        "hidden_states": torch.randn(1, 3, 4, 32, 32),
        "encoder_hidden_states": torch.randn(1, 20, 32),
        "timestep": torch.zeros(1, dtype=torch.long),
        "image_rotary_emb": (torch.randn(768, 64), torch.randn(768, 64)) if rotary else None,
    }
    only_cpu = [ProfilerActivity.CPU]
    with torch.inference_mode(), profile(activities=only_cpu, profile_memory=True) as profiled:
        transformer(**inputs)
    events = profiled.profiler.kineto_results.events()
    changes = sorted((e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]")
    alive = peak = 0
    for _, change in changes:
        alive += change
        peak = max(peak, alive)
    estimate = memory.ROWS_ALIVE * n_rows * 128 * 4
    assert 0.85 * estimate < peak <= estimate


def test_a_table_that_fits_passes_and_one_that_does_not_is_shown(monkeypatch):
    monkeypatch.setattr(memory, "free_memory", lambda device: 3 * GB)
    rows = (MemoryRow("transformer weights", 2 * GB), MemoryRow("keys and values", GB))
    require_memory(rows, "cpu")
    with pytest.raises(BackboneMemoryError) as error:
        require_memory((*rows, MemoryRow("activations", 1)), "cuda:1")
    assert str(error.value) == (
        "memory of cuda:1: expected 3.000 GB free, got 3.000 GB; leave the text encoder out, use "
        "int8 weights, fewer loops or rows, or another device\n"
        "transformer weights      2.000 GB\n"
        "keys and values          1.000 GB\n"
        "activations              0.000 GB\n"
        "total                    3.000 GB"
    )


def test_the_table_ends_with_its_total():
    table = memory_table(configuration("tiny"), rows_schema(100), loops=2)
    lines = format_table(table).splitlines()
    assert lines[-1].startswith("total ")
    assert len({len(line) for line in lines}) == 1


def test_the_machine_has_some_memory():
    assert 0 < free_memory("cpu") < 1 << 50


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpus_free_memory_is_its_own():
    assert 0 < free_memory("cuda") <= torch.cuda.get_device_properties(0).total_memory


@pytest.mark.parametrize("checkpointing", [True, False])
@pytest.mark.parametrize("int8", [False, True])
def test_nothing_frozen_has_a_gradient_or_an_optimizers_state(
    make_transformer, make_inputs, checkpointing, int8
):
    torch.manual_seed(0)
    transformer = make_transformer(heads=4, head_dim=16).requires_grad_(False)
    frozen_bytes = held(transformer.parameters())
    if int8:
        quantise(transformer)
    looped = graft(transformer, 3)
    for block in looped:
        block.use_gradient_checkpointing = checkpointing
    training = [p for p in transformer.parameters() if p.requires_grad]
    before = {name: p.clone() for name, p in transformer.named_parameters() if not p.requires_grad}
    optimizer = torch.optim.AdamW(training)
    transformer(**make_inputs(transformer, batch=2)).sample.square().mean().backward()
    optimizer.step()

    expected = 4 * sum(block.trainable_params() for block in looped)
    assert held(training) == expected < frozen_bytes
    assert held(p.grad for p in transformer.parameters() if p.grad is not None) == expected
    assert all(p.grad is None for p in transformer.parameters() if not p.requires_grad)
    state = [t for values in optimizer.state.values() for t in values.values()]
    assert held(state) == 2 * expected + 4 * len(training)  # two moments, and a step count each
    after = dict(transformer.named_parameters())
    assert all(torch.equal(after[name], value) for name, value in before.items())

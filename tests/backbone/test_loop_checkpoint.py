"""Laws of loop checkpoints: what was saved comes back whole; whatever does not fit changes nothing.

Files of canvas-engineering are made here as its 0.1.0 makes them: `torch.save` of
{"loop_blocks": {"block_0": {name: tensor}, ...}, "action_head": state_dict}.
"""

import json
import os
import pickle
import struct
import zipfile

import pytest
import torch
from diffusers import CogVideoXTransformer3DModel
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from canvas_robot.backbone.action_head import ActionHead
from canvas_robot.backbone.graft import graft_looped_blocks
from canvas_robot.backbone.loop_checkpoint import load_loop_checkpoint, save_loop_checkpoint
from canvas_robot.backbone.loop_files import LoopCheckpointError
from canvas_robot.backbone.looped_wrapper import LoopedBlockWrapper


class Model(nn.Module):
    def __init__(self, n=2, width=8):
        super().__init__()
        self.patch_embed = nn.Linear(3, width)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width)) for _ in range(n)
        )


def grafted(seed=0, n=2, width=8, **arguments):
    """Looped blocks and a head, all of whose parameters are random."""
    model = Model(n, width)
    blocks, head = graft_looped_blocks(
        model, **{"block_attr": "blocks", "latent_channels": 4, "action_dim": 3, **arguments}
    )
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for part in (*blocks, head):
            for parameter in part.parameters():
                parameter.normal_(generator=generator)
    return blocks, head


def state(blocks, head):
    return [t.clone() for part in (*blocks, head) for t in part.state_dict().values()]


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def loops_of(blocks):
    return [p for b in blocks for p in (b.loop_emb, b.loop_gate)]


def save_as_canvas_engineering(blocks, head, path):
    loop_blocks = {
        f"block_{i}": {n: p.data for n, p in block.named_parameters() if p.requires_grad}
        for i, block in enumerate(blocks)
    }
    torch.save({"loop_blocks": loop_blocks, "action_head": head.state_dict()}, path)


def refused(path, *into, **asked):
    """The message with which a load is refused; nothing has changed."""
    before = state(*into)
    with pytest.raises(LoopCheckpointError) as error:
        load_loop_checkpoint(*into, path, **asked)
    assert same(state(*into), before)
    message = str(error.value)
    assert message.startswith(f"{path}: ")
    return message.removeprefix(f"{path}: ")


# ---------------------------------------------------------------- what comes back


@pytest.mark.parametrize("gate", ["identity", "sigmoid"])
@pytest.mark.parametrize("name", ["loops.safetensors", "loops.pt", "deep/er/loops"])
def test_loops_and_head_come_back_bit_for_bit_and_the_backbone_is_not_in_the_file(
    tmp_path, gate, name
):
    saved, loaded = grafted(1, gate=gate), grafted(2, gate=gate)
    backbone = [p.clone() for block in loaded[0] for p in block.original.parameters()]
    save_loop_checkpoint(*saved, tmp_path / name)
    assert load_loop_checkpoint(*loaded, str(tmp_path / name)) == {}
    assert same(loops_of(loaded[0]), loops_of(saved[0]))
    assert same(loaded[1].state_dict().values(), saved[1].state_dict().values())
    assert same([p for block in loaded[0] for p in block.original.parameters()], backbone)
    assert not any("original" in key for key in load_file(tmp_path / name))


def test_cogvideoxs_loops_come_back(make_transformer, tmp_path):
    saved, head = graft_looped_blocks(make_transformer())
    loaded, other = graft_looped_blocks(make_transformer())
    with torch.no_grad():
        for block in saved:
            block.loop_emb_enc.normal_()
            block.loop_gate.normal_()
    save_loop_checkpoint(saved, head, tmp_path / "loops.safetensors")
    load_loop_checkpoint(loaded, other, tmp_path / "loops.safetensors")
    for a, b in zip(saved, loaded, strict=True):
        assert same(
            (a.loop_emb, a.loop_emb_enc, a.loop_gate), (b.loop_emb, b.loop_emb_enc, b.loop_gate)
        )


def test_the_file_says_what_it_fits_and_carries_its_metadata_inside_and_beside(tmp_path):
    metadata = {"loss": 0.073, "step": 5000, "names": ["a", "ä"]}
    path = tmp_path / "loops.pt"
    save_loop_checkpoint(
        *grafted(max_loops=2), path, metadata, backbone_sha256="ab", schema_sha256="cd"
    )
    with safe_open(path, framework="pt") as file:
        header = file.metadata()
    assert json.loads(header.pop("metadata")) == metadata
    assert header == {
        "format": "canvas_robot loop checkpoint 1",
        "blocks": "2",
        "max_loops": "2",
        "width": "8",
        "gate": "identity",
        "backbone_sha256": "ab",
        "schema_sha256": "cd",
    }
    assert json.loads((tmp_path / "loops.json").read_text()) == metadata
    assert load_loop_checkpoint(*grafted(max_loops=2), path) == metadata


def test_no_metadata_writes_no_second_file(tmp_path):
    save_loop_checkpoint(*grafted(), tmp_path / "loops.pt", {})
    assert [path.name for path in tmp_path.iterdir()] == ["loops.pt"]


def test_frozen_loops_are_saved_too(tmp_path):
    saved, loaded = grafted(1), grafted(2)
    for block in saved[0]:
        block.requires_grad_(False)
    save_loop_checkpoint(*saved, tmp_path / "loops")
    load_loop_checkpoint(*loaded, tmp_path / "loops")
    assert same(loops_of(loaded[0]), loops_of(saved[0]))


@pytest.mark.parametrize("freeze", ["half", "none"])
def test_what_else_of_the_blocks_trained_comes_back_where_it_trains(tmp_path, freeze):
    saved, loaded = grafted(1, freeze=freeze), grafted(2, freeze=freeze)
    save_loop_checkpoint(*saved, tmp_path / "loops")
    load_loop_checkpoint(*loaded, tmp_path / "loops")
    assert same(state(*saved), state(*loaded))


@pytest.mark.parametrize("freeze", ["half", "none"])
@pytest.mark.parametrize("save", [save_loop_checkpoint, save_as_canvas_engineering])
def test_no_file_writes_a_frozen_parameter_that_is_no_loops(tmp_path, save, freeze):
    save(*grafted(1, gate="sigmoid", freeze=freeze), tmp_path / "loops")
    assert refused(tmp_path / "loops", *grafted(2, gate="sigmoid")) == (
        "blocks.0.original.0.bias and 7 more: expected no tensor of a parameter that is frozen "
        "here; load it into a graft with the freeze that it was saved from ('half' or 'none')"
    )


def test_frozen_loops_are_loaded_into(tmp_path):
    saved, loaded = grafted(1), grafted(2)
    for block in loaded[0]:
        block.requires_grad_(False)
    save_loop_checkpoint(*saved, tmp_path / "loops")
    load_loop_checkpoint(*loaded, tmp_path / "loops")
    assert same(loops_of(loaded[0]), loops_of(saved[0]))


def test_three_loops_of_cogvideox_2b_are_about_1_4_megabytes(tmp_path):
    with torch.device("meta"):
        transformer = CogVideoXTransformer3DModel()
    blocks, head = graft_looped_blocks(transformer, max_loops=3)
    for block in blocks:
        for name in block.loop_parameter_names:
            setattr(block, name, nn.Parameter(torch.zeros_like(getattr(block, name), device="cpu")))
    save_loop_checkpoint(blocks, head, tmp_path / "loops")
    assert 1.38e6 < (tmp_path / "loops").stat().st_size < 1.41e6


def test_loops_load_into_another_number_format(tmp_path):
    saved, loaded = grafted(1), grafted(2)
    save_loop_checkpoint(*saved, tmp_path / "loops")
    for block in loaded[0]:
        block.to(torch.float64)
    load_loop_checkpoint(*loaded, tmp_path / "loops")
    assert same([p.double() for p in loops_of(saved[0])], loops_of(loaded[0]))


class Custom(nn.Module):
    """A wrapper of one's own, with parameters of its own names."""

    def __init__(self, original, block_idx, max_loops, inner_dim):
        super().__init__()
        self.inner, self.mixer = original, nn.Linear(2, max_loops)


def test_a_custom_wrappers_parameters_come_back_and_fit_no_other_wrapper(tmp_path):
    saved, loaded = (grafted(seed, wrapper_class=Custom) for seed in (1, 2))
    save_loop_checkpoint(*saved, tmp_path / "loops")
    load_loop_checkpoint(*loaded, tmp_path / "loops")
    for a, b in zip(saved[0], loaded[0], strict=True):
        assert same(a.mixer.parameters(), b.mixer.parameters())
    assert "gate: the file has none, expected identity" in refused(tmp_path / "loops", *grafted())
    save_loop_checkpoint(*grafted(), tmp_path / "others")
    assert "blocks.0.mixer.bias: missing" in refused(tmp_path / "others", *loaded)


# ---------------------------------------------------------------- canvas-engineering's files


@pytest.mark.parametrize("freeze", ["full", "none"])
def test_a_canvas_engineering_file_comes_back_into_sigmoid_gates(tmp_path, freeze):
    saved = grafted(1, gate="sigmoid", freeze=freeze)
    loaded = grafted(2, gate="sigmoid", freeze=freeze)
    save_as_canvas_engineering(*saved, tmp_path / "loops.pt")
    assert load_loop_checkpoint(*loaded, tmp_path / "loops.pt") == {}
    assert same(loops_of(loaded[0]), loops_of(saved[0]))
    assert same(loaded[1].state_dict().values(), saved[1].state_dict().values())
    assert same(state(*saved), state(*loaded)) == (freeze == "none")


def test_it_loads_into_wrappers_made_by_hand(tmp_path):
    def by_hand():
        return [LoopedBlockWrapper(nn.Linear(8, 8), i, 3, 8) for i in range(2)], ActionHead()

    saved, loaded = by_hand(), by_hand()
    torch.nn.init.normal_(saved[0][1].loop_emb)
    save_as_canvas_engineering(*saved, tmp_path / "loops.pt")
    load_loop_checkpoint(*loaded, tmp_path / "loops.pt")
    assert same(loops_of(loaded[0]), loops_of(saved[0]))


def test_its_file_is_refused_by_identity_gates(tmp_path):
    save_as_canvas_engineering(*grafted(gate="sigmoid"), tmp_path / "loops.pt")
    assert refused(tmp_path / "loops.pt", *grafted()) == (
        "saved from another graft: gate: the file has sigmoid, expected identity; "
        "graft with gate='sigmoid'"
    )


def test_its_file_never_counts_as_checked_against_a_fingerprint(tmp_path):
    blocks = grafted(gate="sigmoid")
    save_as_canvas_engineering(*blocks, tmp_path / "loops.pt")
    assert "backbone sha256: the file has none, expected ab" in refused(
        tmp_path / "loops.pt", *blocks, backbone_sha256="ab"
    )


# ---------------------------------------------------------------- another graft


DIFFERENCES = [
    ({"n": 3}, "number of blocks: the file has 2, expected 3"),
    ({"max_loops": 4}, "loop count: the file has 3, expected 4"),
    ({"width": 6}, "width: the file has 8, expected 6"),
]


@pytest.mark.parametrize("changes, difference", DIFFERENCES)
@pytest.mark.parametrize("save", [save_loop_checkpoint, save_as_canvas_engineering])
def test_another_graft_is_refused_and_the_difference_named(tmp_path, save, changes, difference):
    save(*grafted(gate="sigmoid"), tmp_path / "loops")
    assert refused(tmp_path / "loops", *grafted(gate="sigmoid", **changes)) == (
        f"saved from another graft: {difference}; load it into the graft that it was saved from"
    )


def test_all_differences_are_named_at_once(tmp_path):
    save_loop_checkpoint(*grafted(), tmp_path / "loops")
    assert refused(tmp_path / "loops", *grafted(n=1, max_loops=2, gate="sigmoid")) == (
        "saved from another graft: number of blocks: the file has 2, expected 1; "
        "loop count: the file has 3, expected 2; gate: the file has identity, expected sigmoid; "
        "graft with gate='identity'"
    )


@pytest.mark.parametrize("save", [save_loop_checkpoint, save_as_canvas_engineering])
def test_another_head_is_refused(tmp_path, save):
    save(*grafted(gate="sigmoid"), tmp_path / "loops")
    assert refused(tmp_path / "loops", *grafted(gate="sigmoid", action_dim=7)) == (
        "action_head.net.2.bias: expected shape (7,), got (3,); "
        "action_head.net.2.weight: expected shape (7, 8), got (3, 8)"
    )
    assert "action_head.weight: missing; action_head.net.0.bias: unknown" in refused(
        tmp_path / "loops", grafted(gate="sigmoid")[0], nn.Linear(2, 2, bias=False)
    )


@pytest.mark.parametrize(
    "key, word", [("backbone_sha256", "backbone"), ("schema_sha256", "schema")]
)
def test_another_backbone_or_schema_is_refused_where_asked(tmp_path, key, word):
    save_loop_checkpoint(*grafted(), tmp_path / "loops", **{key: "ab"})
    save_loop_checkpoint(*grafted(), tmp_path / "unsaid")
    load_loop_checkpoint(*grafted(), tmp_path / "loops", **{key: "ab"})
    load_loop_checkpoint(*grafted(), tmp_path / "loops")
    for name, has in (("loops", "ab"), ("unsaid", "none")):
        assert refused(tmp_path / name, *grafted(), **{key: "cd"}) == (
            f"saved from another graft: {word} sha256: the file has {has}, expected cd; "
            "load it into the graft that it was saved from"
        )


def test_blocks_of_several_widths_come_back_and_fit_only_their_order(tmp_path):
    def two(*widths):
        blocks = [LoopedBlockWrapper(nn.Identity(), i, 3, w) for i, w in enumerate(widths)]
        return blocks, ActionHead()

    save_loop_checkpoint(*two(8, 6), tmp_path / "loops")
    load_loop_checkpoint(*two(8, 6), tmp_path / "loops")
    assert "width: the file has 8, 6, expected 6, 8" in refused(tmp_path / "loops", *two(6, 8))


# ---------------------------------------------------------------- broken and hostile files


@pytest.mark.parametrize("save", [save_loop_checkpoint, save_as_canvas_engineering])
@pytest.mark.parametrize("kept", [0.0, 0.02, 0.5, 0.99])
def test_a_truncated_file_is_refused(tmp_path, save, kept):
    path = tmp_path / "loops"
    save(*grafted(gate="sigmoid"), path)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * kept)])
    assert "whole" in refused(path, *grafted(gate="sigmoid"))


class WritesAFile:
    """Unpickling it would create a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("where", ["top", "inside", "bare pickle"])
def test_a_pickle_with_code_is_refused_and_not_run(tmp_path, where):
    path, trace = tmp_path / "loops.pt", tmp_path / "trace"
    if where == "top":
        torch.save(WritesAFile(trace), path)
    elif where == "inside":
        sections = {"block_0": {"loop_emb": WritesAFile(trace)}}
        torch.save({"loop_blocks": sections, "action_head": {}}, path)
    else:
        path.write_bytes(pickle.dumps(WritesAFile(trace)))
    expected = "expected tensors and nothing executable" if where != "bare pickle" else "whole"
    message = refused(path, *grafted(gate="sigmoid"))
    assert expected in message and "weights_only" not in message and "trust" not in message
    assert not trace.exists()


def test_the_pickle_would_have_run(tmp_path):
    """That the test before this one can fail."""
    pickle.loads(pickle.dumps(WritesAFile(tmp_path / "trace")))
    assert (tmp_path / "trace").exists()


@pytest.mark.parametrize(
    "content",
    [
        [],
        {},
        {"loop_blocks": {}},
        {"loop_blocks": [], "action_head": {}},
        {"loop_blocks": {"block_1": {}}, "action_head": {}},
        {"loop_blocks": {"block_0": torch.zeros(1)}, "action_head": {}},
    ],
)
def test_another_torch_file_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "loops.pt")
    assert refused(tmp_path / "loops.pt", *grafted(gate="sigmoid")).startswith(
        "expected a canvas-engineering loop checkpoint with loop_blocks (block_0, ...) and "
        "action_head, got "
    )


@pytest.mark.parametrize(
    "value, message",
    [
        (3.0, "blocks.0.loop_gate: expected a tensor with data, got float"),
        (torch.zeros(3, 1, device="meta"), "blocks.0.loop_gate: expected a tensor with data"),
        (torch.zeros(3, 1).to_sparse(), "blocks.0.loop_gate: expected a dense tensor"),
        (torch.zeros(3, 1, dtype=torch.int32), "blocks.0.loop_gate: expected a dense tensor of "),
        (torch.zeros(1, 1).expand(10**12, 1), "blocks.0.loop_gate: expected shape (3, 1), got"),
        (torch.tensor([[0.0], [float("nan")], [0.0]]), "blocks.0.loop_gate: expected finite"),
    ],
)
def test_a_tensor_that_cannot_be_used_is_refused(tmp_path, value, message):
    blocks, head = grafted(gate="sigmoid")
    loop_blocks = {f"block_{i}": dict(b.named_parameters()) for i, b in enumerate(blocks)}
    loop_blocks["block_0"]["loop_gate"] = value
    torch.save({"loop_blocks": loop_blocks, "action_head": head.state_dict()}, tmp_path / "a.pt")
    assert message in refused(tmp_path / "a.pt", *grafted(2, gate="sigmoid", freeze="none"))


def rewritten(path, header=None, **tensors):
    """The file with other header entries or tensors; None removes."""
    with safe_open(path, framework="pt") as file:
        old = file.metadata()
    entries = {k: v for k, v in {**old, **(header or {})}.items() if v is not None}
    state = {k: v for k, v in {**load_file(path), **tensors}.items() if v is not None}
    save_file(state, path, metadata=entries)


@pytest.mark.parametrize(
    "header, tensors, message",
    [
        ({"format": None}, {}, "expected format 'canvas_robot loop checkpoint 1' in the header, "),
        ({"format": "canvas_robot loop checkpoint 2"}, {}, "or of a newer canvas_robot"),
        ({"metadata": "{"}, {}, "metadata: expected JSON; "),
        ({"blocks": None}, {}, "number of blocks: the file has none, expected 2"),
        ({}, {"blocks.1.loop_emb": None}, "blocks.1.loop_emb: missing"),
        ({}, {"blocks.2.loop_emb": torch.zeros(1)}, "blocks.2.loop_emb: unknown"),
        ({}, {"extra": torch.zeros(1)}, "extra: unknown"),
        ({}, {"blocks.0.loop_gate": torch.zeros(3)}, "expected shape (3, 1), got (3,)"),
        ({}, {"blocks.1.loop_gate": torch.full((3, 1), torch.inf)}, "got NaN, infinity or"),
        ({}, {"action_head.net.2.bias": torch.full((3,), torch.nan)}, "got NaN, infinity or"),
        ({}, {"blocks.0.loop_gate": torch.ones(3, 1).double() * 1e300}, "one beyond its range"),
        ({"metadata": "[1]"}, {}, "metadata: expected an object, got a list"),
        ({"metadata": "NaN"}, {}, "metadata: expected an object, got a float"),
        ({}, {"blocks.0.loop_gate": torch.zeros(3, 1).bool()}, "got torch.bool"),
    ],
)
def test_a_file_that_does_not_hold_what_it_says_is_refused(tmp_path, header, tensors, message):
    save_loop_checkpoint(*grafted(1), tmp_path / "loops")
    rewritten(tmp_path / "loops", header, **tensors)
    assert message in refused(tmp_path / "loops", *grafted(2))


@pytest.mark.parametrize("kind", ["header", "tensor", "sparse file", "zip"])
def test_absurd_sizes_are_refused_before_anything_is_read(tmp_path, kind):
    path = tmp_path / "loops"
    save_loop_checkpoint(*grafted(gate="sigmoid"), path)
    if kind == "header":
        path.write_bytes(struct.pack("<Q", 2**62) + path.read_bytes()[8:])
    elif kind == "tensor":
        text = b'{"a":{"dtype":"F32","shape":[1000000000000],"data_offsets":[0,4000000000000]}}'
        path.write_bytes(struct.pack("<Q", len(text)) + text)
    elif kind == "sparse file":
        os.truncate(path, 2**40)
    else:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("archive/data/0", bytes(17 << 20))
    message = refused(path, *grafted(gate="sigmoid"))
    too_large = kind in ("sparse file", "zip")
    assert message.startswith(
        "expected at most 16,7" if too_large else "expected a loop checkpoint"
    )


def test_noise_is_refused(tmp_path):
    path = tmp_path / "loops"
    for seed in range(20):
        noise = torch.randint(256, (300,), generator=torch.Generator().manual_seed(seed))
        for magic in (b"", b"PK\x03\x04"):
            path.write_bytes(magic + bytes(noise.tolist()))
            message = refused(path, *grafted(gate="sigmoid"))
            assert message.startswith("expected a whole file" if magic else "expected a loop")


def test_a_file_that_is_not_there_is_said_to_be_missing(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        load_loop_checkpoint(*grafted(), tmp_path / "nowhere")


# ---------------------------------------------------------------- saving


def test_a_save_that_fails_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    path = tmp_path / "loops"
    save_loop_checkpoint(*grafted(1), path)
    before = path.read_bytes()

    def full_disk(tensors, part, metadata):
        part.write_bytes(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr("canvas_robot.backbone.loop_checkpoint.save_file", full_disk)
    with pytest.raises(OSError, match="No space left"):
        save_loop_checkpoint(*grafted(2), path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_what_cannot_be_saved_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(TypeError):
        save_loop_checkpoint(*grafted(), tmp_path / "loops", {"loss": torch.zeros(1)})
    with pytest.raises(LoopCheckpointError) as error:
        save_loop_checkpoint(*grafted(), tmp_path / "loops.json", {"step": 1})
    assert str(error.value) == (
        f"{tmp_path / 'loops.json'}: expected another suffix than .json, where the metadata goes"
    )
    with pytest.raises(LoopCheckpointError) as error:
        save_loop_checkpoint([nn.Linear(2, 2)], ActionHead(), tmp_path / "loops")
    assert str(error.value) == (
        "blocks[0]: expected a looped block, got a Linear; "
        "pass the blocks that graft_looped_blocks returns"
    )
    for metadata in ([1], "step 1", 5):
        with pytest.raises(TypeError, match="metadata: expected a dict or None, got a "):
            save_loop_checkpoint(*grafted(), tmp_path / "loops", metadata)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("part", ["loops", "head"])
def test_numbers_that_would_not_load_are_not_saved_and_the_old_file_stays(tmp_path, part, value):
    path = tmp_path / "loops"
    save_loop_checkpoint(*grafted(1), path, {"step": 1})
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    blocks, head = grafted(2)
    broken = blocks[1].loop_gate if part == "loops" else head.net[0].bias
    with torch.no_grad():
        broken[0] = value
    with pytest.raises(LoopCheckpointError) as error:
        save_loop_checkpoint(blocks, head, path, {"step": 2})
    name = "blocks.1.loop_gate" if part == "loops" else "action_head.net.0.bias"
    assert str(error.value) == (
        f"{path}: {name}: expected finite numbers to save, has NaN or infinity; "
        "has training diverged? go back to an earlier checkpoint"
    )
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before

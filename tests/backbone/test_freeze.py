"""Laws of freezing: sets are chosen by module, and never by part of a name."""

import pytest
import torch
from torch import nn

from canvas_robot.backbone.freeze import FreezeError, freeze_full, freeze_half
from canvas_robot.backbone.graft import graft_looped_blocks
from canvas_robot.backbone.looped_wrapper import LoopedBlockWrapper


class Block(nn.Module):
    """A block whose own parameter is named as a loop parameter is."""

    def __init__(self):
        super().__init__()
        self.norm = nn.LayerNorm(4)
        self.loop_emb = nn.Parameter(torch.zeros(4))


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.patch_embed = nn.Linear(3, 4)
        self.pos_embedding = nn.Parameter(torch.zeros(1, 10, 4))
        self.my_patch_embedder = nn.Linear(3, 4)
        self.pos_embedding_scale = nn.Parameter(torch.ones(1))
        self.loop_gate = nn.Parameter(torch.ones(1))
        self.blocks = nn.ModuleList([Block(), Block()])


def trained(model):
    return {name for name, p in model.named_parameters() if p.requires_grad}


def looped_model():
    model = Model()
    for i, block in enumerate(model.blocks):
        model.blocks[i] = LoopedBlockWrapper(block, i, 3, 4)
    return model


def test_full_trains_only_what_looped_blocks_add_whatever_others_are_named():
    model = looped_model()
    loops = {f"blocks.{i}.{name}" for i in range(2) for name in ("loop_emb", "loop_gate")}
    frozen = freeze_full(model)
    assert trained(model) == loops
    assert frozen == sum(p.numel() for p in model.parameters()) - 2 * (3 * 4 + 3)
    assert freeze_full(model) == frozen


def test_full_of_a_model_without_loops_freezes_all_of_it():
    model = Model()
    assert freeze_full(model) == sum(p.numel() for p in model.parameters())
    assert trained(model) == set()


def test_full_after_half_and_half_after_full_are_as_if_alone():
    model = looped_model()
    freeze_full(model)
    assert freeze_half(model) == (3 * 4 + 4) + 40
    every = {name for name, _ in model.named_parameters()}
    assert trained(model) == every - {"patch_embed.weight", "patch_embed.bias", "pos_embedding"}
    freeze_full(model)
    assert {name.split(".")[0] for name in trained(model)} == {"blocks"}


def test_half_finds_the_embeddings_of_a_model_inside_another():
    outer = nn.Sequential(Model())
    assert freeze_half(outer) == freeze_half(Model())
    assert "0.my_patch_embedder.weight" in trained(outer)


def test_half_of_cogvideox_freezes_its_patch_embedding(make_transformer):
    transformer = make_transformer()
    graft_looped_blocks(transformer, freeze="none")
    assert freeze_half(transformer) == sum(p.numel() for p in transformer.patch_embed.parameters())
    assert all(name.split(".")[0] != "patch_embed" for name in trained(transformer))


def test_shared_parameters_count_once():
    model = Model()
    model.head = nn.Linear(3, 4)
    model.head.weight = model.patch_embed.weight
    assert freeze_half(model) == freeze_half(Model())


def test_half_of_a_model_without_input_embeddings_is_refused_and_changes_nothing():
    model = nn.ModuleDict({"my_patch_embedder": nn.Linear(3, 4), "pos": nn.Linear(3, 4)})
    model.pos.requires_grad_(False)
    with pytest.raises(FreezeError) as error:
        freeze_half(model)
    assert str(error.value) == (
        "freeze 'half': expected patch_embed or pos_embedding with parameters in a ModuleDict, "
        "found neither; use 'full' or 'none'"
    )
    assert trained(model) == {"my_patch_embedder.weight", "my_patch_embedder.bias"}

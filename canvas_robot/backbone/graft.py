"""Grafting: replacing each block of a pretrained model by a looped one, the rest frozen.

The looped blocks are in looped_block.py and looped_wrapper.py, the freeze sets in freeze.py.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping

from diffusers import CogVideoXTransformer3DModel
from diffusers.models.transformers.cogvideox_transformer_3d import CogVideoXBlock
from torch import nn

from canvas_robot.backbone import loops
from canvas_robot.backbone.action_head import ActionHead
from canvas_robot.backbone.freeze import freeze_full, freeze_half, input_embeddings, is_looped
from canvas_robot.backbone.looped_block import LoopedCogVideoXBlock
from canvas_robot.backbone.looped_wrapper import LoopedBlockWrapper

BLOCK_LISTS = (nn.ModuleList, nn.Sequential)
FREEZES = {"full": freeze_full, "half": freeze_half, "none": lambda model: 0}


class GraftError(ValueError):
    """A model cannot be grafted as asked; it is left as it was."""


def graft_looped_blocks(
    transformer: nn.Module,
    max_loops: int = 3,
    block_attr: str = "transformer_blocks",
    wrapper_class: Callable[..., nn.Module] | None = None,
    inner_dim: int | None = None,
    action_dim: int = 7,
    latent_channels: int = 16,
    freeze: str = "full",
    gate: str = "identity",
) -> tuple[list[nn.Module], ActionHead]:
    """Wraps every block in place and freezes the rest; returns the looped blocks and a new head.

    With gate "identity" the model's outputs are bit for bit what they were, at any loop count: no
    number that goes into a kernel changes. Which kernel runs is torch's choice, and freezing alone
    can change it and with it the last digits: nn.TransformerEncoderLayer multiplies otherwise where
    weights need no gradient, and in eval mode runs fused where nothing does. In eval mode under
    torch.no_grad() its graft, too, equals it bit for bit.

    Args:
        transformer: any model with a list of blocks that take the hidden states first.
        max_loops: largest number of runs of each block; they start at 1 (`set_loops`).
        block_attr: name of the list, an nn.ModuleList or nn.Sequential.
        wrapper_class: makes a looped block: `wrapper_class(block, block_idx=i,
            max_loops=max_loops, inner_dim=width)`. If its parameters include `embed_dim` instead of
            `inner_dim`, it gets the width by that name; if they include `gate` or `keep_outputs` it
            gets the gate or True. Default: LoopedCogVideoXBlock for CogVideoX blocks,
            else LoopedBlockWrapper. What it adds to the block's parameters is what is trained.
        inner_dim: width of the hidden states. Default: as the block's layer norms say.
        action_dim, latent_channels: sizes of the head, see ActionHead.
        freeze: "full" trains the loops only, "half" all but the patch and position embedding,
            "none" changes nothing.
        gate: "identity" or "sigmoid" (canvas-engineering's), see loops.py.

    Raises GraftError, before anything is changed: no such list, no blocks in it, grafted already, a
    width that is unknown or wrong, a size below 1, an unknown word, a wrapper class that cannot be
    called so.
    """
    if freeze not in FREEZES:
        raise GraftError(f"freeze: expected one of {tuple(FREEZES)}, got {freeze!r}")
    try:
        loops.require_gate(gate)
        loops.require_count("max_loops", max_loops)
        if inner_dim is not None:
            loops.require_count("inner_dim", inner_dim)
        action_head = ActionHead(latent_channels, action_dim)
        if freeze == "half":
            input_embeddings(transformer)
    except ValueError as error:
        raise GraftError(str(error)) from error
    blocks = _blocks_of(transformer, block_attr)
    looped = _loop_all(blocks, max_loops, wrapper_class, inner_dim, gate)
    FREEZES[freeze](transformer)
    return looped, action_head


def graft(transformer: CogVideoXTransformer3DModel, max_loops: int) -> list[LoopedCogVideoXBlock]:
    """The policy's graft: CogVideoX only, identity gates, all loops on, everything else frozen.

    Raises GraftError as graft_looped_blocks does, and for blocks that are not CogVideoX's.
    """
    blocks = _blocks_of(transformer, "transformer_blocks")
    if not all(isinstance(block, CogVideoXBlock) for block in blocks):
        kinds = sorted({type(block).__name__ for block in blocks})
        raise GraftError(f"transformer: expected CogVideoXBlock blocks, got {', '.join(kinds)}")
    looped = _loop_all(blocks, max_loops, LoopedCogVideoXBlock, None, "identity")
    freeze_full(transformer)
    for block in looped:
        block.set_loops(max_loops)
    return looped


def _blocks_of(transformer: nn.Module, block_attr: str) -> nn.ModuleList | nn.Sequential:
    """The list of blocks, not empty and not grafted."""
    kind = type(transformer).__name__
    blocks = getattr(transformer, block_attr, None)
    if not isinstance(blocks, BLOCK_LISTS):
        lists = [name for name, m in transformer.named_children() if isinstance(m, BLOCK_LISTS)]
        raise GraftError(
            f"block_attr: expected the name of a list of blocks in a {kind}, got {block_attr!r}; "
            f"its lists are: {', '.join(lists) or 'none'}"
        )
    if len(blocks) == 0:
        raise GraftError(f"{block_attr}: expected at least one block in a {kind}, got none")
    for i, block in enumerate(blocks):
        if is_looped(block):
            raise GraftError(
                f"{block_attr}[{i}]: grafted already (a {type(block).__name__}); "
                "load the model afresh to graft it again"
            )
    return blocks


def _width(block: nn.Module, i: int, inner_dim: int | None) -> int:
    """Width of a block's hidden states: as given, or as its layer norms agree. Never a guess."""
    kind = type(block).__name__
    if isinstance(block, CogVideoXBlock):
        (own,) = block.norm1.norm.normalized_shape
        if inner_dim not in (None, own):
            raise GraftError(
                f"inner_dim: block {i} ({kind}) has hidden states of width {own}, got {inner_dim}"
            )
        return own
    if inner_dim is not None:
        return inner_dim
    norms = [m for m in block.modules() if isinstance(m, nn.LayerNorm | nn.RMSNorm)]
    shapes = sorted({norm.normalized_shape for norm in norms})
    if len(shapes) != 1 or len(shapes[0]) != 1:
        found = f"layer norms over {', '.join(map(str, shapes))}" if shapes else "no layer norms"
        raise GraftError(
            f"inner_dim: the width of block {i} ({kind}) is not certain, it has {found}; "
            "pass inner_dim"
        )
    return shapes[0][0]


def _loop_all(
    blocks: nn.ModuleList | nn.Sequential,
    max_loops: int,
    wrapper_class: Callable[..., nn.Module] | None,
    inner_dim: int | None,
    gate: str,
) -> list[nn.Module]:
    """Wraps all blocks, then puts them in place: where one cannot be wrapped, none is."""
    looped = [
        _looped(block, i, max_loops, wrapper_class, _width(block, i, inner_dim), gate)
        for i, block in enumerate(blocks)
    ]
    for i, block in enumerate(looped):
        blocks[i] = block
    return looped


def _looped(
    block: nn.Module,
    i: int,
    max_loops: int,
    wrapper_class: Callable[..., nn.Module] | None,
    width: int,
    gate: str,
) -> nn.Module:
    if wrapper_class is None:
        cogvideox = isinstance(block, CogVideoXBlock)
        wrapper_class = LoopedCogVideoXBlock if cogvideox else LoopedBlockWrapper
    name = getattr(wrapper_class, "__name__", repr(wrapper_class))
    accepted = _parameters(wrapper_class, name)
    by_embed_dim = "embed_dim" in accepted and "inner_dim" not in accepted
    offered = {"gate": gate, "keep_outputs": True}
    arguments = {
        "block_idx": i,
        "max_loops": max_loops,
        "embed_dim" if by_embed_dim else "inner_dim": width,
        **{name: value for name, value in offered.items() if name in accepted},
    }
    _require_callable(wrapper_class, name, block, arguments)
    if gate != "identity" and "gate" not in accepted:
        raise GraftError(f"gate: {name} has a gate of its own and takes none, got {gate!r}")
    looped = wrapper_class(block, **arguments)
    if not isinstance(looped, nn.Module):
        raise GraftError(
            f"wrapper_class: expected {name} to make an nn.Module, got {type(looped).__name__}"
        )
    originals = {id(p) for p in block.parameters()}
    looped.loop_parameter_names = tuple(
        added for added, p in looped.named_parameters() if id(p) not in originals
    )
    return looped


def _parameters(
    wrapper_class: Callable[..., nn.Module], name: str
) -> Mapping[str, inspect.Parameter]:
    try:
        return inspect.signature(wrapper_class).parameters
    except (TypeError, ValueError) as error:  # not callable, or built in without a signature
        raise GraftError(
            f"wrapper_class: expected a class or function that makes an nn.Module, got {name}; "
            f"{error}"
        ) from error


def _require_callable(
    wrapper_class: Callable[..., nn.Module], name: str, block: nn.Module, arguments: dict
) -> None:
    try:
        inspect.signature(wrapper_class).bind(block, **arguments)
    except TypeError as error:
        raise GraftError(
            f"wrapper_class: expected {name} to take (block, block_idx, max_loops, inner_dim), "
            f"the last three by name: {error}"
        ) from error

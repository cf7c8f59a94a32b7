"""Two schemas' regions, compared by meaning: which are near, what bridges them. Prints nothing."""

from __future__ import annotations

from dataclasses import dataclass

from canvas_robot.schema import CanvasSchema, RegionSpec
from canvas_robot.schema.plain import plain_number, shown
from canvas_robot.schema.transfer import BridgingCost, bridging_cost


@dataclass(frozen=True)
class Pair:
    """A region of each schema, their transfer distance by a model, and what maps mine to theirs."""

    mine: str
    theirs: str
    embedding_model: str
    distance: float
    bridging: BridgingCost


@dataclass(frozen=True)
class NotCompared:
    """A region that could be compared with none of the other schema's, and why.

    schema: "mine" or "theirs".
    """

    schema: str
    region: str
    reason: str


@dataclass(frozen=True)
class Comparison:
    """What there is to say about two schemas.

    pairs: those within the threshold, nearest first.
    beyond: number of pairs that were compared and lie beyond it.
    """

    threshold: float
    pairs: tuple[Pair, ...]
    beyond: int
    not_compared: tuple[NotCompared, ...]


def compare_schemas(mine: CanvasSchema, theirs: CanvasSchema, threshold: float = 0.3) -> Comparison:
    """Compares every region of one schema with every region of the other.

    Args:
        mine, theirs: schemas whose regions have embeddings (see `with_embeddings`).
        threshold: largest transfer distance of a compatible pair, in [0, 2].

    Raises:
        ValueError: a threshold outside [0, 2].
        TransferError: embeddings of one model that differ in length or have no direction.
    """
    limit = plain_number(threshold)
    if limit is None or not 0.0 <= limit <= 2.0:
        raise ValueError(f"threshold: expected a number in [0, 2], got {shown(threshold)}")
    distances = mine.compatible_regions(theirs, threshold=2.0)  # all that can be compared
    pairs = tuple(
        Pair(
            mine=a,
            theirs=b,
            embedding_model=mine.layout.region_spec(a).embedding_model,
            distance=distance,
            bridging=bridging_cost(distance, mine.layout.d_model, theirs.layout.d_model),
        )
        for a, b, distance in distances
        if distance <= threshold
    )
    compared = {"mine": {a for a, _, _ in distances}, "theirs": {b for _, b, _ in distances}}
    not_compared = tuple(
        NotCompared(side, name, _reason(schema.layout.region_spec(name), other))
        for side, schema, other in (("mine", mine, theirs), ("theirs", theirs, mine))
        for name in schema.layout.regions
        if name not in compared[side]
    )
    return Comparison(threshold, pairs, len(distances) - len(pairs), not_compared)


def _reason(region: RegionSpec, other: CanvasSchema) -> str:
    """Why none of the other schema's regions could be compared with this one."""
    if region.semantic_embedding is None:
        if region.semantic_type is None:
            return "no semantic_type says what it means"
        return "its semantic_type is not embedded"
    specs = [other.layout.region_spec(name) for name in other.layout.regions]
    models = sorted({s.embedding_model for s in specs if s.semantic_embedding is not None})
    return (
        f"embedded by {region.embedding_model!r}, of which the other schema has nothing "
        f"(it has {', '.join(map(repr, models)) or 'no embedding'}); embed both by one model"
    )

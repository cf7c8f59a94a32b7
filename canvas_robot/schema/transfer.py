"""How far apart two regions' meanings are, and what connecting them costs. Makes no embedding."""

from __future__ import annotations

import math
from dataclasses import dataclass

from canvas_robot.schema.plain import plain_int, plain_number, shown
from canvas_robot.schema.region import RegionSpec

# Limits of the distance, measured with all-MiniLM-L6-v2 on sentences about robot signals; the
# figures and what they cannot tell are in docs/semantics.md. Other models need limits of their own.
DIRECT_UP_TO = 0.1  # one number or one word of the same sentence differs
ADAPTER_UP_TO = 0.6  # no two signals of different kinds (image, arm, language, value) came nearer

ADAPTER_REDUCTION = 4  # width of an adapter's bottleneck: the narrower side's width through this


class TransferError(ValueError):
    """Two regions' meanings cannot be compared."""


class MissingEmbeddingError(TransferError):
    """A region has no semantic embedding."""


class EmbeddingModelMismatchError(TransferError):
    """The embeddings come from different models."""


class EmbeddingDimensionError(TransferError):
    """The embeddings have different lengths."""


class EmbeddingDirectionError(TransferError):
    """An embedding has no direction: it is zero, empty or not finite."""


@dataclass(frozen=True)
class BridgingCost:
    """What maps one region's token vectors to another's.

    Args:
        kind: "direct", "adapter layers" or "full MLP".
        parameters: trainable parameters by formula, weights and biases, for one direction; one map
            serves all tokens of the region.
    """

    kind: str
    parameters: int


def transfer_distance(a: RegionSpec, b: RegionSpec) -> float:
    """1 - cosine of the regions' semantic embeddings: 0 same direction, 1 orthogonal, 2 opposite.

    Computed as half the squared distance of the unit vectors, which is the same number and loses
    nothing where the two are close.

    Raises:
        MissingEmbeddingError: a region has no semantic_embedding.
        EmbeddingModelMismatchError: the embedding_model differs.
        EmbeddingDimensionError: the lengths differ.
        EmbeddingDirectionError: an embedding is zero, empty or not finite.
        TransferError: no region's declaration.
    """
    for region in (a, b):
        if not isinstance(region, RegionSpec):
            raise TransferError(
                f"region: expected a RegionSpec, got {shown(region)}; "
                "layout.region_spec(name) gives that of a name"
            )
        if region.semantic_embedding is None:
            raise MissingEmbeddingError(
                f"semantic_embedding: both regions need one, got None for the region that means "
                f"{region.semantic_type!r}; canvas_robot.semantic.with_embeddings(schema) computes "
                "them from the semantic types"
            )
    if a.embedding_model != b.embedding_model:
        raise EmbeddingModelMismatchError(
            f"Embedding model mismatch: {a.embedding_model!r} and {b.embedding_model!r}; distances "
            "mean something within one model only. Embed both with the same one."
        )
    if len(a.semantic_embedding) != len(b.semantic_embedding):
        raise EmbeddingDimensionError(
            f"Embedding dimension mismatch: {len(a.semantic_embedding)} and "
            f"{len(b.semantic_embedding)} numbers, both said to be by {a.embedding_model!r}; one "
            "was cut or its model's name is wrong. Embed it again."
        )
    pairs = zip(_unit(a), _unit(b), strict=True)
    return min(0.5 * math.fsum((x - y) ** 2 for x, y in pairs), 2.0)


def bridging_cost(distance: float, d_src: int, d_dst: int) -> BridgingCost:
    """What maps tokens of width `d_src` to width `d_dst` at this transfer distance: an estimate.

    The kind follows from the distance by DIRECT_UP_TO and ADAPTER_UP_TO, the number from the
    widths:

    - direct: nothing where the widths are equal, else one linear map;
    - adapter layers: that, and a bottleneck of two linear layers beside it (Houlsby et al. 2019,
      arXiv:1902.00751), min(d_src, d_dst) / ADAPTER_REDUCTION wide;
    - full MLP: two linear layers, max(d_src, d_dst) wide between.

    Args:
        distance: a transfer distance, in [0, 2].
        d_src, d_dst: d_model of the canvas that is read and of the one that reads.

    Raises:
        ValueError: a distance that is no number in [0, 2], or a width that is no int above 0.
    """
    number, widths = plain_number(distance), (plain_int(d_src), plain_int(d_dst))
    if number is None or not 0.0 <= number <= 2.0:
        raise ValueError(f"distance: expected a number in [0, 2], got {shown(distance)}")
    if any(width is None or width < 1 for width in widths):
        raise ValueError(
            f"d_src, d_dst: expected widths, ints >= 1, got {shown(d_src)} and {shown(d_dst)}"
        )
    if distance > ADAPTER_UP_TO:
        return BridgingCost("full MLP", _two_layers(d_src, max(d_src, d_dst), d_dst))
    between = 0 if d_src == d_dst else _linear(d_src, d_dst)
    if distance > DIRECT_UP_TO:
        bottleneck = max(1, min(d_src, d_dst) // ADAPTER_REDUCTION)
        return BridgingCost("adapter layers", between + _two_layers(d_src, bottleneck, d_dst))
    return BridgingCost("direct", between)


def _unit(region: RegionSpec) -> list[float]:
    """The embedding over its length; scaled first, so that no square over- or underflows."""
    embedding = region.semantic_embedding
    largest = max(map(abs, embedding), default=0.0)
    if largest == 0.0 or not all(map(math.isfinite, embedding)):
        raise EmbeddingDirectionError(
            f"semantic_embedding: expected finite numbers that are not all 0, got "
            f"{len(embedding)} numbers without a direction for the region that means "
            f"{region.semantic_type!r}; embed it again"
        )
    scaled = [x / largest for x in embedding]
    length = math.hypot(*scaled)
    return [x / length for x in scaled]


def _linear(d_in: int, d_out: int) -> int:
    return (d_in + 1) * d_out


def _two_layers(d_in: int, hidden: int, d_out: int) -> int:
    return _linear(d_in, hidden) + _linear(hidden, d_out)

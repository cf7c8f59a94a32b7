"""From a region's meaning in words to its embedding, offline. torch loads with the first text."""

from canvas_robot.semantic.comparison import Comparison, NotCompared, Pair, compare_schemas
from canvas_robot.semantic.embedding import (
    EmbeddedTextError,
    embed,
    meaningful_regions,
    regions_to_embed,
    with_embeddings,
    with_missing_embeddings,
)
from canvas_robot.semantic.models import (
    DEFAULT_MODEL,
    ModelNotHereError,
    SemanticModelError,
    ServiceModelError,
    UnsupportedModelError,
    model_folder,
    model_name,
)

__all__ = [
    "DEFAULT_MODEL",
    "Comparison",
    "EmbeddedTextError",
    "ModelNotHereError",
    "NotCompared",
    "Pair",
    "SemanticModelError",
    "ServiceModelError",
    "UnsupportedModelError",
    "compare_schemas",
    "embed",
    "meaningful_regions",
    "model_folder",
    "model_name",
    "regions_to_embed",
    "with_embeddings",
    "with_missing_embeddings",
]

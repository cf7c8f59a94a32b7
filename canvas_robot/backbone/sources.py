"""Where a backbone's files are: a name in config/backbones, a folder, or a snapshot of a hub id.

Nothing is downloaded unless asked for; what is missing is named with the command that fetches it.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import msgspec
from huggingface_hub import constants, snapshot_download
from huggingface_hub.file_download import repo_folder_name

from canvas_robot.backbone.configuration import (
    IMAGE_CONDITIONED,
    PAIRED_FRAMES,
    PARTS,
    SUITABLE,
    BackboneConfiguration,
    BackboneError,
)
from canvas_robot.backbone.part_config import read_object
from canvas_robot.resources import config_path, config_root
from canvas_robot.schema.plain import shown

HUB_ID = re.compile(
    r"(?P<organisation>[\w.-]{1,96})/(?P<model>[\w.-]{1,96})(@(?P<revision>[\w./-]{1,200}))?"
)
ORGANISATIONS = ("zai-org", "THUDM")  # today's name first; the hub redirects from the former one
EXAMPLE = "zai-org/CogVideoX-2b"
UNSUITABLE = {
    "CogVideoX1.5-5B": PAIRED_FRAMES,
    "CogVideoX1.5-5B-I2V": PAIRED_FRAMES,
    "CogVideoX-5b-I2V": IMAGE_CONDITIONED,
}
SAME_SIZE = {"CogVideoX-2b": "cogvideox_2b_random", "CogVideoX-5b": "cogvideox_5b_random"}
PUBLISHED_BYTES = 2  # per parameter: 2B is published in float16, 5B in bfloat16

FileName = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_.-]{1,200}\.safetensors\Z")]


class _Index(msgspec.Struct):
    """A *.safetensors.index.json: which file of the same folder holds which tensor."""

    weight_map: Annotated[dict[str, FileName], msgspec.Meta(min_length=1)]


@dataclass(frozen=True)
class Location:
    """A folder in diffusers' layout, and what it is a copy of.

    source: a folder's path as given, or the hub id with its commit, `organisation/model@commit`.
    revision: that commit; None for a folder.
    """

    folder: Path
    source: str
    revision: str | None


def names() -> list[str]:
    """The backbones that ship with the package (random weights)."""
    return sorted(path.stem for path in (config_root() / "backbones").glob("*.json"))


def named_spec(source: str) -> dict | None:
    """The file config/backbones/<source>.json, or None where there is none."""
    try:
        return json.loads(config_path("backbones", f"{source}.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None


def split_revision(source: str) -> tuple[str, str | None]:
    """`organisation/model@revision` to its two halves; anything else stays as it is, with None."""
    match = HUB_ID.fullmatch(source)
    if match is None or match["revision"] is None or _is_folder(source):
        return source, None
    return source.rpartition("@")[0], match["revision"]


def locate(
    source: str,
    revision: str | None = None,
    parts: Sequence[str] = PARTS,
    local_files_only: bool = True,
) -> Location:
    """Finds a backbone's folder, with the weights of the parts that are asked for.

    Args:
        source: a folder, or a hub id with or without `@revision`.
        revision: branch, tag or commit of a hub id.
        local_files_only: look in the hub's local cache only, and never at the network.
    Raises:
        BackboneError: an unknown name, a model that no canvas fits, or missing files, with the
            command that fetches them and how large they are.
    """
    match = HUB_ID.fullmatch(source)
    if _is_folder(source):
        if revision is not None:
            raise BackboneError(
                f"backbone {source!r}: revisions are of hub ids, a folder has none; "
                f"got revision {revision!r}"
            )
        found = Location(Path(os.path.expanduser(source)), source, None)
    elif match is None:
        raise BackboneError(
            f"backbone {source[:200]!r}: expected one of {', '.join(names())}, a folder, or a hub "
            f"id such as {EXAMPLE}; there is no folder of this name"
        )
    else:
        name, pinned = split_revision(source)
        if pinned is not None and revision not in (None, pinned):
            raise BackboneError(
                f"backbone {source!r}: names revision {pinned!r}, asked for {revision!r}; name one"
            )
        found = _snapshot(name, revision or pinned, parts, local_files_only)
    _require_files(found, parts)
    return found


def _snapshot(
    name: str, revision: str | None, parts: Sequence[str], local_files_only: bool
) -> Location:
    """The local copy of a hub id, under either of its organisation's names."""
    organisation, model = name.split("/")
    if model in UNSUITABLE:
        raise BackboneError(f"backbone {name!r}: {UNSUITABLE[model]}; {SUITABLE}")
    others = [f"{o}/{model}" for o in ORGANISATIONS if organisation in ORGANISATIONS]
    aliases, reasons = list(dict.fromkeys([name, *others])), []
    for alias in aliases:
        try:
            folder = snapshot_download(
                alias,
                revision=revision,
                cache_dir=constants.HF_HUB_CACHE,
                allow_patterns=[f"{part}/*" for part in (*parts, "tokenizer")],
                local_files_only=local_files_only,
            )
        except (OSError, ValueError) as error:
            reasons.append(str(error))
            continue
        return Location(Path(folder), f"{name}@{Path(folder).name}", Path(folder).name)
    where = f"not in {constants.HF_HUB_CACHE}"
    held = [commit for alias in aliases for commit in _commits(alias)]
    if held:
        where = f"revision {revision or 'main'!r} {where}, which holds {', '.join(held)}"
    if not local_files_only:
        where += f" and not to be had from the hub: {reasons[0]}"
    raise BackboneError(f"backbone {name!r}: {where}; {_remedy(name, revision, parts)}")


def _require_files(found: Location, parts: Sequence[str]) -> None:
    """Raises BackboneError unless all weights, and T5's tokenizer beside it, are there."""
    missing = [f"{part}/{name}" for part in parts for name in _missing_weights(found.folder / part)]
    if "text_encoder" in parts and not (found.folder / "tokenizer").is_dir():
        missing.append("tokenizer")
    if not missing:
        return
    pickled = [path for part in parts for path in (found.folder / part).glob("*.bin")]
    hint = " (pickled weights are not read: they could run code)" if pickled else ""
    if found.revision is not None:
        remedy = f"; {_remedy(split_revision(found.source)[0], found.revision, parts)}"
    else:
        remedy = _completion(found.folder, missing)
    if all(name.split("/")[0] in ("text_encoder", "tokenizer") for name in missing):
        remedy += (
            "; or do without: embed the instructions with `canvas-robot prompts` on a machine that "
            "has them, and give the folder that it makes"
        )
    raise BackboneError(
        f"backbone {found.source!r}: expected {', '.join(parts)} in diffusers' layout, as "
        f"safetensors, in {found.folder}; missing {', '.join(missing)}{hint}{remedy}"
    )


def _commits(name: str) -> list[str]:
    """Those of a hub id's that are in the local cache."""
    folder = Path(constants.HF_HUB_CACHE, repo_folder_name(repo_id=name, repo_type="model"))
    return sorted(path.name for path in (folder / "snapshots").glob("*"))


def _completion(folder: Path, missing: Sequence[str]) -> str:
    """The command that fetches what a copy of a known model lacks, and no file that it has.

    Empty for a folder of anything else: two models' files would be mixed.
    """
    try:
        own = BackboneConfiguration.from_folder(folder)
    except BackboneError:
        return ""
    for model, spec in SAME_SIZE.items():
        known = BackboneConfiguration.from_spec(named_spec(spec), spec)
        same = (own.transformer, own.vae) == (known.transformer, known.vae)
        if same and own.text_encoder in (None, known.text_encoder):
            command = ["hf", "download", f"{ORGANISATIONS[0]}/{model}", "--local-dir", str(folder)]
            for name in missing:
                command += ["--include", f"{name}/*" if name == "tokenizer" else name]
            return f"; if it is a copy of {model}, complete it with: {shlex.join(command)}"
    return ""


def weight_files(folder: Path) -> list[Path]:
    """A part's safetensors files, whether they are there or not.

    Raises BackboneError for an index of them that is none, or names other places.
    """
    for index in sorted(folder.glob("*.safetensors.index.json")):
        try:
            listed = msgspec.convert(read_object(index), _Index).weight_map.values()
        except msgspec.ValidationError as error:
            raise BackboneError(
                f"{index}: weight_map: expected names of tensors with plain names of safetensors "
                f"files; {error}"
            ) from error
        return sorted({folder / name for name in listed})
    whole = ("diffusion_pytorch_model", "model")[folder.name == "text_encoder"]
    return [folder / f"{whole}.safetensors"]


def _missing_weights(folder: Path) -> list[str]:
    expected = [folder / "config.json", *weight_files(folder)]
    return [path.name for path in expected if not path.is_file()]


def _remedy(name: str, revision: str | None, parts: Sequence[str]) -> str:
    """The command that fetches a hub id, and how large each part is where that is known."""
    organisation, model = name.split("/")
    if organisation in ORGANISATIONS:
        name = f"{ORGANISATIONS[0]}/{model}"
    command = ["hf", "download", name]
    if revision is not None:
        command += ["--revision", revision]
    if "text_encoder" not in parts:
        command += ["--exclude", "text_encoder/*"]
    sizes = {}
    if model in SAME_SIZE:
        spec = SAME_SIZE[model]
        configuration = BackboneConfiguration.from_spec(named_spec(spec), spec)
        sizes = {p: configuration.parameters(p) * PUBLISHED_BYTES / 1e9 for p in parts}
    listed = ", ".join(f"{part} {size:.1f}" for part, size in sizes.items())
    size = f" (about {sum(sizes.values()):.1f} GB: {listed})" if sizes else ""
    return f"fetch it with: {shlex.join(command)}{size}"


def require_usable_tokenizer(folder: Path) -> None:
    """Raises BackboneError for a tokenizer of the folder's own code, which is never run.

    Also when its only file is one that needs sentencepiece: CogVideoX is published with
    spiece.model alone, and transformers then names another library.
    """
    config = folder / "tokenizer_config.json"
    if config.is_file() and "auto_map" in (settings := read_object(config)):
        raise BackboneError(
            f"{config}: auto_map: expected one of transformers' own tokenizers, got "
            f"{shown(settings['auto_map'])}; code in a folder is not run"
        )
    if (folder / "tokenizer.json").is_file() or not (folder / "spiece.model").is_file():
        return
    if importlib.util.find_spec("sentencepiece") is None:
        raise BackboneError(
            f"{folder / 'spiece.model'}: needs the sentencepiece library; pip install sentencepiece"
        )


def _is_folder(source: str) -> bool:
    """False for names that no file system takes, too."""
    return os.path.isdir(os.path.expanduser(source))

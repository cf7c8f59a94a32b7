"""Where a backbone's files are: a name in config/backbones, a folder, or a snapshot of a hub id.

Nothing is downloaded unless asked for; what is missing is named with the command that fetches it.
"""

from __future__ import annotations

import importlib.util
import json
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import constants, snapshot_download

from canvas_robot.backbone.configuration import (
    IMAGE_CONDITIONED,
    PAIRED_FRAMES,
    PARTS,
    SUITABLE,
    BackboneConfiguration,
    BackboneError,
)
from canvas_robot.resources import config_path, config_root

HUB_ID = re.compile(r"(?P<organisation>[\w.-]+)/(?P<model>[\w.-]+)(@(?P<revision>[\w./-]+))?")
ORGANISATIONS = ("zai-org", "THUDM")  # today's name first; the hub redirects from the former one
EXAMPLE = "zai-org/CogVideoX-2b"
UNSUITABLE = {
    "CogVideoX1.5-5B": PAIRED_FRAMES,
    "CogVideoX1.5-5B-I2V": PAIRED_FRAMES,
    "CogVideoX-5b-I2V": IMAGE_CONDITIONED,
}
SAME_SIZE = {"CogVideoX-2b": "cogvideox_2b_random", "CogVideoX-5b": "cogvideox_5b_random"}
PUBLISHED_BYTES = 2  # per parameter: 2B is published in float16, 5B in bfloat16


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
    if match is None or match["revision"] is None or Path(source).expanduser().is_dir():
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
    folder = Path(source).expanduser()
    match = HUB_ID.fullmatch(source)
    if source and folder.is_dir():  # Path("") is the current folder
        if revision is not None:
            raise BackboneError(
                f"backbone {source!r}: revisions are of hub ids, a folder has none; "
                f"got revision {revision!r}"
            )
        found = Location(folder, source, None)
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
    aliases = [f"{o}/{model}" for o in ORGANISATIONS if organisation in ORGANISATIONS]
    reasons = []
    for alias in dict.fromkeys([name, *aliases]):
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
        remedy = _remedy(split_revision(found.source)[0], found.revision, parts)
    else:
        example = ["hf", "download", EXAMPLE, "--local-dir", str(found.folder)]
        remedy = f"complete it, for example with: {shlex.join(example)}"
    raise BackboneError(
        f"backbone {found.source!r}: expected {', '.join(parts)} in diffusers' layout, as "
        f"safetensors, in {found.folder}; missing {', '.join(missing)}{hint}; {remedy}"
    )


def weight_files(folder: Path) -> list[Path]:
    """A part's safetensors files, whether they are there or not."""
    for index in sorted(folder.glob("*.safetensors.index.json")):
        listed = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
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
        configuration = BackboneConfiguration(
            **{part: named_spec(SAME_SIZE[model])[part] for part in PARTS}
        )
        sizes = {p: configuration.parameters(p) * PUBLISHED_BYTES / 1e9 for p in parts}
    listed = ", ".join(f"{part} {size:.1f}" for part, size in sizes.items())
    size = f" (about {sum(sizes.values()):.1f} GB: {listed})" if sizes else ""
    return f"fetch it with: {shlex.join(command)}{size}"


def require_tokenizer_library(folder: Path) -> None:
    """Raises BackboneError when a tokenizer's only file is one that needs sentencepiece.

    CogVideoX is published with spiece.model alone; transformers then names another library.
    """
    tokenizer = folder / "tokenizer"
    if (tokenizer / "tokenizer.json").is_file() or not (tokenizer / "spiece.model").is_file():
        return
    if importlib.util.find_spec("sentencepiece") is None:
        raise BackboneError(
            f"{tokenizer / 'spiece.model'}: needs the sentencepiece library; "
            "pip install sentencepiece"
        )

"""Reading a configuration: a YAML file, `key=value` overrides, and what is said of mistakes."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import msgspec

from canvas_robot.schema.plain import shown
from canvas_robot.training.config import ConfigError, TrainConfig
from canvas_robot.training.yaml_reader import YamlError, read_yaml

Config = TypeVar("Config", bound=msgspec.Struct)

MOST_BYTES = 1 << 20  # of a file: one of ours has two thousand
_KINDS = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text",
    NoneType: "null",
}
_BOUNDS = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}


def load_config(
    path: str | Path, overrides: Sequence[str] = (), kind: type[Config] = TrainConfig
) -> Config:
    """Reads a configuration file and lays `key=value` overrides over it.

    Keys of overrides have dots (`optimiser.lr=1e-4`), values are YAML. `kind` is what the file
    configures: a struct that forbids unknown fields.

    Raises ConfigError, naming the file, the key, what was expected and what came.
    """
    path = Path(path).expanduser()
    if path.stat().st_size > MOST_BYTES:
        raise ConfigError(f"{path}: expected at most {MOST_BYTES:,} bytes; this is another file")
    try:
        data = read_yaml(path.read_text(encoding="utf-8"))
    except (YamlError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: expected YAML; {error}") from error
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: expected keys and values, got {shown(data)}")
    return config_of(with_overrides(data, overrides), str(path), kind)


def with_overrides(data: Mapping, overrides: Sequence[str]) -> dict:
    """The values with `key=value` overrides laid over them; raises ConfigError for another form."""
    result = _copied(data)
    for override in overrides:
        key, equals, text = override.partition("=")
        *sections, last = key.split(".")
        if not (equals and all(sections) and last):
            raise ConfigError(
                f"override {shown(override)}: expected key=value, such as optimiser.lr=1e-4"
            )
        try:
            value = read_yaml(text)
        except YamlError as error:
            raise ConfigError(f"override {shown(override)}: expected YAML; {error}") from error
        section = result
        for name in sections:  # what is off, or not there, becomes a section
            if not isinstance(section.get(name), dict):
                section[name] = {}
            section = section[name]
        section[last] = value
    return result


def config_of(data: Mapping, source: str, kind: type[Config] = TrainConfig) -> Config:
    """Plain values to a configuration; raises ConfigError that begins with `source`."""
    _require_known(data, kind, source)
    try:
        return msgspec.convert(data, kind)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{source}: {_readable(error, data, kind)}") from error


def differences(ours: TrainConfig, theirs: TrainConfig) -> dict[str, tuple[object, object]]:
    """Keys, with dots, whose values differ: (ours, theirs)."""
    one, other = (_flat(msgspec.to_builtins(config)) for config in (ours, theirs))
    pairs = {key: (one.get(key), other.get(key)) for key in {**one, **other}}
    return {key: pair for key, pair in pairs.items() if pair[0] != pair[1]}


def _copied(data: Mapping) -> dict:
    return {k: _copied(v) if isinstance(v, dict) else v for k, v in data.items()}


def _flat(data: Mapping, prefix: str = "") -> dict[str, object]:
    flat: dict[str, object] = {}
    for name, value in data.items():
        key = f"{prefix}{name}"
        flat |= _flat(value, f"{key}.") if isinstance(value, dict) else {key: value}
    return flat


def _require_known(data: Mapping, section: type, source: str, prefix: str = "") -> None:
    """Raises ConfigError for a key that a section does not have, with the closest that it has."""
    hints = get_type_hints(section)
    for name, value in data.items():
        if name not in hints:
            close = difflib.get_close_matches(str(name), hints, n=1)
            remedy = f"did you mean {close[0]}?" if close else f"there are {', '.join(hints)}"
            raise ConfigError(f"{source}: unknown key {prefix}{name}; {remedy}")
        inner = _section_in(hints[name])
        if inner is not None and isinstance(value, dict):
            _require_known(value, inner, source, f"{prefix}{name}.")


def _section_in(hint: object) -> type[msgspec.Struct] | None:
    """The section among the types that a key may have."""
    kinds = [kind for kind in (hint, *get_args(hint)) if isinstance(kind, type)]
    return next((kind for kind in kinds if issubclass(kind, msgspec.Struct)), None)


def _readable(error: msgspec.ValidationError, data: Mapping, kind: type) -> str:
    """msgspec's error with its key in front, all that the key may be, and what came."""
    match = re.fullmatch(r"(.*?)(?: - at `\$\.?([^`]*)`)?", str(error), re.DOTALL)
    what, key = match[1], match[2] or ""
    missing = re.fullmatch("Object missing required field `(.*)`", what)
    if missing:
        return f"{key}{'.' * bool(key)}{missing[1]}: expected a value, it is missing"
    if error.__cause__ is not None:  # said by a section about itself
        return f"{key}: {what}" if key else what
    hint, value = kind, data
    for name in re.findall(r"[^.\[\]]+", key):
        if isinstance(value, dict):
            hint = get_type_hints(_section_in(hint), include_extras=True)[name]
            value = value[name]
        else:
            hint, value = get_args(hint)[int(name)], value[int(name)]
    return f"{key}: expected {_described(hint)}, got {shown(value)}"


def _described(hint: object) -> str:
    """What a key may be, in words."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        bounds = [
            f"{sign} {getattr(arguments[1], name):g}"
            for name, sign in _BOUNDS.items()
            if getattr(arguments[1], name) is not None
        ]
        return " ".join([_described(arguments[0]), " and ".join(bounds)]).strip()
    if origin is Literal:
        return " or ".join(map(str, arguments))
    if origin in (Union, UnionType):
        return " or ".join(map(_described, arguments))
    if origin is tuple:
        return f"a list of {len(arguments)}: {', '.join(map(_described, arguments))}"
    return _KINDS.get(hint, "a section of keys and values")

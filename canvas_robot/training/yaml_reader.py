"""YAML as people mean it: `1e-4` is a number, `off` and `no` are words, no key comes twice.

PyYAML follows YAML 1.1, where these are a text, two booleans and a silent loss. Scalars here are
those of YAML 1.2's core schema (https://yaml.org/spec/1.2.2/#103-core-schema), no objects.
"""

from __future__ import annotations

import re

import yaml


class YamlError(ValueError):
    """A text is not YAML, or has a key twice."""


class _Resolver(yaml.resolver.BaseResolver):
    """Which plain words are no texts."""

    yaml_implicit_resolvers = {}  # noqa: RUF012  (PyYAML's own way)


class _Loader(_Resolver, yaml.SafeLoader):
    """SafeLoader that refuses a key twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        twice = next((key for number, key in enumerate(keys) if key in keys[:number]), None)
        if twice is not None:
            raise yaml.constructor.ConstructorError(
                None, None, f"key {twice!r} comes twice", node.start_mark
            )
        return super().construct_mapping(node, deep)


_SCALARS = (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9]+", list("-+0123456789")),
    (
        "float",
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        list("-+.0123456789"),
    ),
)
for _name, _pattern, _first in _SCALARS:
    _Resolver.add_implicit_resolver(
        f"tag:yaml.org,2002:{_name}", re.compile(rf"(?:{_pattern})\Z"), _first
    )


def _decimal(loader: _Loader, node: yaml.ScalarNode) -> int:
    return int(loader.construct_scalar(node))  # 010 is ten


def _float(loader: _Loader, node: yaml.ScalarNode) -> float:
    text = loader.construct_scalar(node).lower()
    return float(text.replace(".inf", "inf").replace(".nan", "nan"))


_Loader.add_constructor("tag:yaml.org,2002:int", _decimal)
_Loader.add_constructor("tag:yaml.org,2002:float", _float)


class _Dumper(_Resolver, yaml.SafeDumper):
    """SafeDumper that quotes the texts that the loader would take for something else."""


def read_yaml(text: str) -> object:
    """The value that a YAML text is. Raises YamlError, with the line, for a text that is none."""
    try:
        return yaml.load(text, _Loader)
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        raise YamlError(str(error) or "nested too deeply") from error


def write_yaml(value: object) -> str:
    """Plain values as YAML; the inverse of `read_yaml`."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False)

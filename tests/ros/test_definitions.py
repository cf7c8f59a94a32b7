"""Laws of definitions made of classes: they are those that the messages were generated from."""

from __future__ import annotations

import importlib

import pytest
from rosbags.typesys import Stores, get_typestore

from canvas_robot.ros.definitions import DefinitionError, add_type, kind_of

KNOWN = get_typestore(Stores.ROS2_JAZZY)


def installed() -> list[type]:
    """Messages of all packages that are installed and that rosbags knows, too."""
    found = []
    for kind in KNOWN.fielddefs:
        package, _, name = kind.split("/")
        try:
            found.append(getattr(importlib.import_module(f"{package}.msg"), name))
        except (ImportError, AttributeError):
            continue
    return found


def holds_char(kind: str) -> bool:
    """Of a `char` a class says that it is a uint8, which it is but for the hash."""
    return "char " in KNOWN.generate_msgdef(kind)[0] or "char[" in KNOWN.generate_msgdef(kind)[0]


def test_a_definition_has_the_hash_of_the_one_that_the_message_was_generated_from():
    made, messages = get_typestore(Stores.EMPTY), installed()
    for message in messages:
        add_type(made, message)
    same = [kind_of(message) for message in messages if not holds_char(kind_of(message))]
    assert len(same) > 100
    assert [made.hash_rihs01(kind) for kind in same] == [KNOWN.hash_rihs01(kind) for kind in same]


def made(told: str) -> type:
    """A message's class with one field, and what it calls its type."""
    fields = {"get_fields_and_field_types": lambda: {"values": told}}
    return type("Bounded", (), {**fields, "__module__": "made_msgs.msg._bounded"})


def test_wide_strings_are_refused_by_name():
    with pytest.raises(DefinitionError, match=r"made_msgs/msg/Bounded: expected no wide .* values"):
        add_type(get_typestore(Stores.EMPTY), made("sequence<wstring<4>>"))


@pytest.mark.parametrize(
    ("told", "defined"),
    [
        ("sequence<string<10>, 5>", "string<=10[<=5] values"),
        ("string<10>[3]", "string<=10[3] values"),
        ("sequence<geometry_msgs/Point, 3>", "geometry_msgs/Point[<=3] values"),
        ("sequence<double>", "float64[] values"),
    ],
)
def test_bounded_fields_keep_their_bounds(told, defined):
    typestore = get_typestore(Stores.EMPTY)
    add_type(typestore, made(told))
    lines = typestore.generate_msgdef("made_msgs/msg/Bounded", ros_version=2)[0].splitlines()
    assert lines[0] == defined

"""Definitions of message types that rosbags does not know, as their classes tell them."""

from __future__ import annotations

import re

from rosbags.typesys import get_types_from_msg
from rosbags.typesys.store import Typestore

from canvas_robot.ros.fields import message_class

# What a class calls its fields' types, and what a definition does.
_NAMES = {"double": "float64", "float": "float32", "boolean": "bool", "octet": "byte"}
_SEQUENCE = re.compile(r"sequence<(?P<of>.+?)(?:, (?P<most>\d+))?>")
_ARRAY = re.compile(r"(?P<of>.+)\[(?P<count>\d+)\]")
_TEXT = re.compile(r"(?P<of>string)<(?P<most>\d+)>")
_OWN = re.compile(r"[a-z]\w*/[A-Z]\w*")


class DefinitionError(ValueError):
    """A message's type has no definition that rosbags could write."""


def kind_of(msg_type: type) -> str:
    """The name of a message's class, such as sensor_msgs/msg/JointState."""
    return f"{msg_type.__module__.split('.')[0]}/msg/{msg_type.__name__}"


def add_type(typestore: Typestore, msg_type: type) -> None:
    """Makes a message's type known to a typestore, with all the types that it holds.

    Constants and defaults are left out: a class does not tell them as such. Raises BindingError
    where a type that it holds is not installed, DefinitionError for wide strings.
    """
    kind = kind_of(msg_type)
    if kind in typestore.fielddefs:
        return
    fields = msg_type.get_fields_and_field_types()
    wide = [name for name, told in fields.items() if "wstring" in told]
    if wide:
        raise DefinitionError(
            f"{kind}: expected no wide strings in what is recorded, got {', '.join(wide)}"
        )
    text = "\n".join(f"{_defined(told)} {name}" for name, told in fields.items())
    for package_and_name in _OWN.findall(text):
        add_type(typestore, message_class(package_and_name.replace("/", "/msg/")))
    typestore.register(get_types_from_msg(text, kind))


def _defined(told: str) -> str:
    """A field's type as definitions write it, of what the class calls it."""
    if found := _SEQUENCE.fullmatch(told):
        most = f"<={found['most']}" if found["most"] else ""
        return f"{_defined(found['of'])}[{most}]"
    if found := _ARRAY.fullmatch(told):
        return f"{_defined(found['of'])}[{found['count']}]"
    if found := _TEXT.fullmatch(told):
        return f"{found['of']}<={found['most']}"
    return _NAMES.get(told, told)

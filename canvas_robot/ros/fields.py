"""Numbers out of any ROS message, by paths that a binding declares."""

from __future__ import annotations

import importlib
import re
from typing import Any, final

import numpy as np

from canvas_robot.ros.messages import MessageError
from canvas_robot.signals.binding import BindingError, RosFields

_PART = re.compile(r"(?P<name>[a-z][a-z0-9_]*)(\[(?P<key>[^\[\]]+)\])?")


def message_class(message: str) -> type:
    """The class of a message type such as geometry_msgs/msg/WrenchStamped.

    Raises BindingError where that is not installed, or is no message.
    """
    package, _, name = message.split("/")
    try:
        found = getattr(importlib.import_module(f"{package}.msg"), name)
    except (ImportError, AttributeError) as error:
        raise BindingError(
            f"message {message!r}: {error}; install the package ros-<distro>-"
            f"{package.replace('_', '-')}, or mend the name"
        ) from error
    if not hasattr(found, "get_fields_and_field_types"):  # of foreign types, the mark of a message
        raise BindingError(f"message {message!r}: expected a ROS message, got {found!r}")
    return found


@final
class FieldReader:
    """Reads a vector out of messages of one type.

    A path is names joined by dots; brackets pick from an array, by number, or by the name that
    stands at that place of the message's own array `name`: `position[waist]` of a JointState.

    Raises BindingError for a path that its message type does not have.
    """

    def __init__(self, source: RosFields) -> None:
        self._source = source
        self.message = message_class(source.message)
        self._paths = [_parsed(field) for field in source.fields]
        for field, path in zip(source.fields, self._paths, strict=True):
            _check(field, path, self.message)

    def read(self, msg: Any) -> np.ndarray:
        """(n,) float64, in the order of the fields; MessageError where one is not there."""
        values = [
            _read(msg, field, path)
            for field, path in zip(self._source.fields, self._paths, strict=True)
        ]
        return np.array(values, dtype=np.float64)


def _parsed(field: str) -> list[tuple[str, str | None]]:
    parts = [_PART.fullmatch(part) for part in field.split(".")]
    if not all(parts):
        raise BindingError(
            f"field {field!r}: expected names joined by dots, each with a number or a name in "
            f"brackets where it picks from an array, such as wrench.force.x or position[waist]"
        )
    return [(part["name"], part["key"]) for part in parts]


def _check(field: str, path: list[tuple[str, str | None]], message: type) -> None:
    """Follows the path through the types, as far as these are known without a message."""
    for i, (name, key) in enumerate(path):
        types = message.get_fields_and_field_types()
        if name not in types:
            raise BindingError(
                f"field {field!r}: {message.__name__} has no {name!r}; it has {', '.join(types)}"
            )
        found = types[name]
        if key is not None and not key.isdecimal() and "name" not in types:
            raise BindingError(
                f"field {field!r}: {message.__name__} has no array 'name' to find {key!r} in"
            )
        element = re.sub(r"^sequence<(.*?)(, \d+)?>$|\[\d+\]$", r"\1", found)
        if (element != found) != (key is not None):
            wanted = "a number or name in brackets" if key is None else "no brackets"
            raise BindingError(f"field {field!r}: {name} is {found}; expected {wanted}")
        if i == len(path) - 1:
            if "/" in element or element.startswith(("string", "wstring")):
                raise BindingError(f"field {field!r}: expected a number, {name} is {found}")
        elif "/" not in element:
            raise BindingError(f"field {field!r}: {name} is {found}, it has no parts")
        else:
            package, part = element.split("/")
            message = message_class(f"{package}/msg/{part}")


def _read(msg: Any, field: str, path: list[tuple[str, str | None]]) -> float:
    for name, key in path:
        owner, msg = msg, getattr(msg, name)
        if key is None:
            continue
        if key.isdecimal():
            at = int(key)
        elif key in owner.name:
            at = owner.name.index(key)
        else:
            there = ", ".join(owner.name) or "none"
            raise MessageError(f"{field}: expected {key!r} among the names, there are {there}")
        if at >= len(msg):
            raise MessageError(f"{field}: expected more than {at} values, got {len(msg)}")
        msg = msg[at]
    return float(msg)

"""Plain Python values out of what a caller hands over, and their text in an error.

What a declaration accepts is said where it is declared.
"""

from __future__ import annotations

import operator
import unicodedata
from numbers import Integral, Real

MOST_INT = 2**31 - 1  # of any count: beyond it no tensor and no clock goes
_UNSAFE = {"Cc", "Cf", "Cs", "Zl", "Zp"}  # controls, text direction, halves of characters, lines
_JOINERS = "\u200c\u200d"  # words of some languages are written with them


def plain_int(value: object) -> int | None:
    """The int that a whole number of any kind (numpy's too) is; None for all else, bools too."""
    if type(value) is int:
        return value
    if isinstance(value, Integral) and not isinstance(value, bool):
        return operator.index(value)
    return None


def plain_number(value: object) -> int | float | None:
    """The int or float that a real number of any kind is; None for all else, bools too."""
    if type(value) is float:
        return value
    if isinstance(value, Real) and not isinstance(value, Integral):
        try:
            return float(value)
        except OverflowError:
            return None
    return plain_int(value)


def plain_list(value: object) -> list | tuple | None:
    """A list or tuple as it is, an array (whatever has `tolist`) as a list, None for all else."""
    if not isinstance(value, list | tuple) and hasattr(value, "tolist"):
        value = value.tolist()
    return value if isinstance(value, list | tuple) else None


def unsafe_characters(text: str) -> str:
    """Its characters that a terminal or a picture would obey, hide or fail to show."""
    if text.isprintable():
        return ""
    return "".join(c for c in text if unicodedata.category(c) in _UNSAFE and c not in _JOINERS)


def printable(text: str) -> str:
    """The text with those characters escaped as in a Python string."""
    for character in set(unsafe_characters(text)):
        text = text.replace(character, repr(character)[1:-1])
    return text


def shown(value: object, most: int = 160) -> str:
    """A value as an error quotes it: its repr, cut where it is long."""
    try:
        text = repr(value)
    except ValueError:  # an int of more digits than Python prints
        return f"a too long {type(value).__name__}"
    return text if len(text) <= most else f"{text[: most - 3]}..."

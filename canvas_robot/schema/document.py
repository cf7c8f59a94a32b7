"""read_document: a schema's file as JSON values. What they must say is `schema.py`'s."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

from canvas_robot.schema.plain import shown


class SchemaError(ValueError):
    """A schema names what it does not declare, or its JSON is not a schema."""


def read_document(path: str | Path) -> object:
    """The JSON value of a UTF-8 file, with or without a byte order mark.

    Raises:
        SchemaError: naming the file, the place and the remedy: no UTF-8, no JSON, or a key that
            stands twice in one object.
        OSError: the file cannot be read.
    """
    data = Path(path).read_bytes()
    try:
        text = data.decode("utf-8-sig")
        if not text.strip():
            raise SchemaError("an empty file")
        return json.loads(text, object_pairs_hook=_without_duplicates)
    except UnicodeDecodeError as error:
        got = f"bytes that are no UTF-8, first at byte {error.start}; save it as UTF-8"
    except json.JSONDecodeError as error:
        got = f"{error}; correct it there: JSON has neither comments nor commas before a bracket"
    except RecursionError:
        got = "lists or objects nested too deep; a schema nests three deep"
    except SchemaError as error:
        got = str(error)
    except ValueError:  # Python's limit on the digits of an int
        got = "an int of thousands of digits; shorten it"
    raise SchemaError(f"{path}: expected a canvas schema in JSON, got {got}")


def _without_duplicates(pairs: list[tuple[str, object]]) -> dict:
    result = dict(pairs)
    if len(result) < len(pairs):
        counts = Counter(name for name, _ in pairs)
        twice = [name for name in result if counts[name] > 1]
        raise SchemaError(f"the keys {shown(twice)} twice in one object; keep one of each")
    return result

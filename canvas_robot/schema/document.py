"""A schema's file: JSON values read from it, and written. What they must say is `schema.py`'s."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

from canvas_robot.destinations import ready_file
from canvas_robot.schema.plain import shown

MOST_BYTES = 256 << 20  # of a file; a thousand regions that all read all take 60 MB


class SchemaError(ValueError):
    """A schema names what it does not declare, or its JSON is not a schema."""


def read_document(path: str | Path) -> object:
    """The JSON value of a UTF-8 file, with or without a byte order mark.

    Raises:
        SchemaError: naming the file, the place and the remedy: no UTF-8, no JSON, a key that
            stands twice in one object, or more than MOST_BYTES.
        OSError: the file cannot be read.
    """
    with Path(path).open("rb") as file:
        data = file.read(MOST_BYTES + 1)
    try:
        if len(data) > MOST_BYTES:
            raise SchemaError(f"more than {MOST_BYTES >> 20} MiB; is it another file?")
        text = data.decode("utf-8-sig")
        if not text.strip():
            raise SchemaError("an empty file")
        return json.loads(text, object_pairs_hook=_without_duplicates, parse_constant=_refuse)
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


def write_document(path: str | Path, document: dict) -> None:
    """Writes JSON values to a UTF-8 file; nothing is written where they are none.

    Raises:
        SchemaError: naming the file and the value that JSON does not have, or more than MOST_BYTES.
        OSError: the file cannot be written.
    """
    try:
        text = json.dumps(document, indent=2, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise SchemaError(
            f"{path}: metadata: expected text, finite numbers, true, false, None, and lists and "
            f"dicts of these, as JSON has them; {error}"
        ) from error
    if len(text) > MOST_BYTES:
        raise SchemaError(f"{path}: more than {MOST_BYTES >> 20} MiB, which nobody would read")
    ready_file(Path(path)).write_text(text + "\n", encoding="utf-8")


def _refuse(constant: str) -> object:
    raise SchemaError(f"{constant}, which JSON does not have; write a finite number or null")


def _without_duplicates(pairs: list[tuple[str, object]]) -> dict:
    result = dict(pairs)
    if len(result) < len(pairs):
        counts = Counter(name for name, _ in pairs)
        twice = [name for name in result if counts[name] > 1]
        raise SchemaError(f"the keys {shown(twice)} twice in one object; keep one of each")
    return result

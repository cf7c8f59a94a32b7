"""Pickles of plain containers and NumPy arrays, read without running anything they name.

A pickle is a program. Here its few allowed names stand for functions of this file, which check what
they are given; every other name is refused before anything is called. NumPy's own constructors are
not among them: with a forged dtype they read and write foreign memory.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

_EXPECTED = "expected arrays and plain data"
_MOST_BYTES = 1 << 28
_MOST_DEEP = 20
_NUMBERS = {"b1", *(f"{kind}{size}" for kind in "iu" for size in (1, 2, 4, 8)), "f2", "f4", "f8"}


class UnsafePickleError(RuntimeError):
    """A pickle names something that is neither a plain container nor an array."""


def load_plain_pickle(file: Path) -> Any:
    """The value in a file: None, numbers, texts, bytes, lists, tuples, sets, dictionaries, arrays.

    Arrays and NumPy's numbers are NumPy's again; an array of other things than numbers is None.

    Raises UnsafePickleError, ValueError for a damaged or very long one.
    """
    size = file.stat().st_size
    if size > _MOST_BYTES:
        raise ValueError(f"{file}: expected at most {_MOST_BYTES:,} bytes, got {size:,}")
    try:
        return _finished(_PlainUnpickler(BytesIO(file.read_bytes())).load(), {}, depth=0)
    except UnsafePickleError as error:
        raise UnsafePickleError(
            f"{file}: {error}; loading it as it is would run code of whoever made it: do not use it"
        ) from error
    except Exception as error:  # a damaged pickle raises whatever its bytes happen to mean
        raise ValueError(f"{file}: expected a pickle of plain data, got: {error!r}") from error


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        module = module.replace("numpy._core.", "numpy.core.")
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise UnsafePickleError(
                f"expected arrays and plain data, got {module}.{name}"
            ) from None

    def persistent_load(self, pid: object) -> Any:
        raise UnsafePickleError(f"expected arrays and plain data, got a reference to {pid!r}")


class _Allowed:
    """A name's stand-in. It has no attribute that a pickle could set."""

    __slots__ = ("_make",)

    def __init__(self, make: Callable[..., Any]) -> None:
        self._make = make

    def __call__(self, *args: Any) -> Any:
        return self._make(*args)

    def __setstate__(self, state: object) -> None:
        raise UnsafePickleError(f"{_EXPECTED}, got an attempt to change what a name stands for")


class _Type:
    """Stands for a dtype until the array is made."""

    __slots__ = ("order", "spec")

    def __init__(self, spec: str, *_: object) -> None:
        self.spec, self.order = spec, "="

    def __setstate__(self, state: tuple) -> None:
        self.order = state[1]

    def numpy(self) -> np.dtype | None:
        """None for what is not a plain number."""
        spec = self.spec.lstrip("<>|=") if isinstance(self.spec, str) else ""
        if spec not in _NUMBERS or self.order not in ("<", ">", "|", "="):
            return None
        return np.dtype(spec).newbyteorder(self.order)


class _Array:
    """Stands for an array until all of it has been read."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value: np.ndarray | None = None

    def __setstate__(self, state: tuple) -> None:
        _, shape, dtype, fortran, data = state
        self.value = _array(data, dtype, shape, "F" if fortran else "C")


def _array(data: bytes, dtype: _Type, shape: tuple, order: str) -> np.ndarray | None:
    kind = dtype.numpy()
    if kind is None:
        return None
    if not isinstance(data, bytes | bytearray) or not isinstance(shape, tuple):
        raise ValueError(f"expected an array's bytes and shape, got {type(data)} and {shape!r}")
    return np.frombuffer(data, kind).reshape(shape, order=order)


def _from_buffer(data: bytes, dtype: _Type, shape: tuple, order: str) -> _Array:
    made = _Array()
    made.value = _array(data, dtype, shape, order)
    return made


def _number(dtype: _Type, data: bytes) -> _Array:
    return _from_buffer(data, dtype, (), "C")


def _latin(text: str, encoding: str) -> bytes:
    if encoding != "latin1":
        raise UnsafePickleError(f"{_EXPECTED}, got bytes written as {encoding!r}")
    return text.encode("latin1")


# Protocols 2 to 5, written under Python 3 by NumPy 1 and 2.
_ALLOWED = {
    (module, name): _Allowed(make)
    for module, name, make in (
        ("numpy", "ndarray", lambda *_: None),
        ("numpy", "dtype", _Type),
        ("numpy.core.multiarray", "_reconstruct", lambda *_: _Array()),
        ("numpy.core.multiarray", "scalar", _number),
        ("numpy.core.numeric", "_frombuffer", _from_buffer),
        ("__builtin__", "bytes", lambda: b""),
        ("collections", "OrderedDict", lambda: {}),
        ("_codecs", "encode", _latin),
    )
}


def _finished(value: Any, known: dict[int, Any], depth: int) -> Any:
    """The value with arrays in place of their stand-ins.

    known: what was finished already, by id: a pickle may use a part any number of times.
    """
    if depth > _MOST_DEEP:
        raise ValueError(f"expected at most {_MOST_DEEP} containers inside each other")
    if isinstance(value, _Array):
        return value.value
    if isinstance(value, dict | list | tuple) and id(value) not in known:
        if isinstance(value, dict):
            made = {key: _finished(inner, known, depth + 1) for key, inner in value.items()}
        else:
            made = type(value)(_finished(inner, known, depth + 1) for inner in value)
        known[id(value)] = made
    return known.get(id(value), value)

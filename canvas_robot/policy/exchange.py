"""Exchange: Python values between two processes, their arrays by shared memory.

A picture through a pipe is written and read in small pieces; through shared memory it is copied in
and out at once. Both ends are processes of this package, so pickle is safe here.
"""

from __future__ import annotations

import mmap
import os
import pickle
import select
import struct
from math import ceil
from multiprocessing.connection import Connection
from multiprocessing.reduction import DupFd

BLOCK_BYTES = 256 << 20  # address space; only what is written to takes memory
_ALIGNMENT = 64
_IN_LINE_BYTES = 4096  # an array up to so large goes the way of all else
_COUNT = struct.Struct("<Q")


class ExchangeError(ValueError):
    """A value is too large to be exchanged."""


class Block:
    """Memory that processes share; it has no name, and goes when nobody holds it.

    It can be an argument of a process that is being started, and only that.
    """

    def __init__(self, fd: int | None = None) -> None:
        self.fd = os.memfd_create("canvas_robot") if fd is None else fd
        if fd is None:
            os.ftruncate(self.fd, BLOCK_BYTES)

    def __reduce__(self):
        return _lent, (DupFd(self.fd),)

    def mapped(self) -> mmap.mmap:
        """The memory itself; the block is used up."""
        with open(self.fd, "r+b", buffering=0) as file:
            return mmap.mmap(file.fileno(), BLOCK_BYTES)


def _lent(fd) -> Block:
    return Block(fd.detach())


class Exchange:
    """One end. `send` overwrites the arrays of the value sent before: ask, then wait for the reply.

    Args:
        connection: to the other end, for all but large arrays.
        block: the memory that both share.
    """

    def __init__(self, connection: Connection, block: Block) -> None:
        self._connection, self._block = connection, block.mapped()
        self._heard = select.poll()  # `Connection.poll` makes one anew each time
        self._heard.register(connection.fileno(), select.POLLIN)

    def send(self, value: object) -> None:
        """Raises ExchangeError for arrays of more than BLOCK_BYTES, OSError where nobody hears."""
        spans, end = [], 0

        def in_line(array: pickle.PickleBuffer) -> bool:
            nonlocal end
            raw = array.raw()
            if raw.nbytes <= _IN_LINE_BYTES:
                return True
            start, end = end, end + raw.nbytes
            if end > BLOCK_BYTES:
                raise ExchangeError(
                    f"expected arrays of at most {BLOCK_BYTES:,} bytes in all, got at least {end:,}"
                )
            self._block[start:end] = raw
            spans.extend((start, end))
            end += -end % _ALIGNMENT
            return False

        pickled = pickle.dumps(value, 5, buffer_callback=in_line)
        head = struct.pack(f"<{1 + len(spans)}Q", len(spans), *spans)
        self._connection.send_bytes(head + pickled)

    def wait(self, timeout_s: float | None) -> bool:
        """Whether a value comes, or the other end ends, within so long; None: however long."""
        return bool(self._heard.poll(None if timeout_s is None else ceil(timeout_s * 1e3)))

    def receive(self) -> object:
        """The next value; its arrays are the receiver's own. EOFError where the other end ended."""
        message = memoryview(self._connection.recv_bytes())
        (count,) = _COUNT.unpack_from(message)
        spans = struct.unpack_from(f"<{count}Q", message, _COUNT.size)
        pickled = message[_COUNT.size * (1 + count) :]
        with memoryview(self._block) as block:
            arrays = [bytearray(block[a:b]) for a, b in zip(spans[::2], spans[1::2], strict=True)]
        return pickle.loads(pickled, buffers=arrays)

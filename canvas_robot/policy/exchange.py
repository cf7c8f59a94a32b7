"""Exchange: Python values between two processes, their arrays by shared memory.

A picture through a pipe is written and read in small pieces; through shared memory it is copied in
and out at once. Both ends are processes of this package, so pickle is safe here.
"""

from __future__ import annotations

import mmap
import os
import pickle
from multiprocessing.connection import Connection
from multiprocessing.reduction import DupFd

BLOCK_BYTES = 256 << 20  # address space; only what is written to takes memory
_ALIGNMENT = 64


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
        connection: to the other end, for all but arrays.
        block: the memory that both share.
    """

    def __init__(self, connection: Connection, block: Block) -> None:
        self.connection, self._block = connection, block.mapped()

    def send(self, value: object) -> None:
        """Raises ExchangeError for arrays of more than BLOCK_BYTES, OSError where nobody hears."""
        arrays: list[pickle.PickleBuffer] = []
        head = pickle.dumps(value, 5, buffer_callback=arrays.append)
        spans, end = [], 0
        for array in arrays:
            raw = array.raw()
            start, end = end, end + raw.nbytes
            if end > BLOCK_BYTES:
                raise ExchangeError(
                    f"expected arrays of at most {BLOCK_BYTES:,} bytes in all, got at least {end:,}"
                )
            self._block[start:end] = raw
            spans.append((start, end))
            end += -end % _ALIGNMENT
        self.connection.send((head, spans))

    def receive(self) -> object:
        """The next value; its arrays are the receiver's own. EOFError where the other end ended."""
        head, spans = self.connection.recv()
        with memoryview(self._block) as block:
            return pickle.loads(head, buffers=[bytearray(block[a:b]) for a, b in spans])

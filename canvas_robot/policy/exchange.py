"""Exchange: typed messages between two processes, their large arrays by shared memory.

A message is one packet, a long one in shared memory too, encoded by msgspec and decoded to the
types that are declared: half of the work of pickling it and sending it through a pipe. A picture
through a socket is written and read in small pieces; through shared memory it is copied at once.
"""

from __future__ import annotations

import mmap
import os
import select
import socket
import threading
from multiprocessing.reduction import DupFd

import msgspec
import numpy as np

BLOCK_BYTES = 256 << 20  # address space; only what is written to takes memory
_ALIGNMENT = 64
_IN_LINE_BYTES = 4096  # an array up to so large goes the way of all else
_PACKET_BYTES = 65_536


class ExchangeError(ValueError):
    """A message is too large to be exchanged."""


class Message(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """What can be sent: a subclass, of fields that msgspec knows, and of arrays."""


class _Long(Message):
    """Stands for a message that is itself in the shared memory."""

    start: int
    end: int


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


def ends() -> tuple[socket.socket, socket.socket]:
    """The two ends of a way for messages, for an Exchange each."""
    both = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in both:  # which may have room for less by the machine's settings
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2 * _PACKET_BYTES)
    return both


class Exchange:
    """One end. `send` overwrites the arrays of the message sent before: ask, then wait.

    Args:
        end: of `ends`.
        block: the memory that both share.
        reads: the type of the messages that come, a union of subclasses of Message.
    """

    def __init__(self, end: socket.socket, block: Block, reads: object) -> None:
        self._socket, self._coming = end, select.poll()  # select takes no descriptor above 1023
        self._coming.register(end, select.POLLIN)
        self._memory = np.frombuffer(block.mapped(), np.uint8)
        self._sending, self._used = threading.Lock(), 0  # of it, by the message that is being sent
        self._encoder = msgspec.msgpack.Encoder(enc_hook=self._packed)
        self._decoder = msgspec.msgpack.Decoder(reads | _Long, dec_hook=self._unpacked)

    def send(self, message: Message) -> None:
        """Raises ExchangeError for more than BLOCK_BYTES, OSError where nobody hears.

        And TypeError for what cannot be sent.
        """
        with self._sending:
            self._used = 0
            packet = self._encoder.encode(message)
            if len(packet) > _PACKET_BYTES:
                span = self._laid_down(np.frombuffer(packet, np.uint8))
                packet = self._encoder.encode(_Long(*span))
            self._socket.send(packet)

    @property
    def has_come(self) -> bool:
        """Whether `receive` would not wait: a message has come, or the other end has ended."""
        return bool(self._coming.poll(0))

    def receive(self, timeout_s: float | None = None) -> Message:
        """The next message; its arrays are the receiver's own.

        Raises TimeoutError where none comes within so long, None: however long; EOFError where the
        other end ended.
        """
        self._socket.settimeout(timeout_s)
        packet = self._socket.recv(_PACKET_BYTES)
        if not packet:
            raise EOFError("the other end ended")
        message = self._decoder.decode(packet)
        if type(message) is _Long:
            message = self._decoder.decode(self._memory[message.start : message.end].tobytes())
        return message

    def _packed(self, value: object) -> object:
        """What msgspec does not know: an array is its type, shape, and bytes or their place."""
        if isinstance(value, np.ndarray) and value.dtype.kind not in "OV":
            in_line = value.nbytes <= _IN_LINE_BYTES
            data = value.tobytes() if in_line else self._laid_down(value)[0]
            return value.dtype.str, value.shape, data
        if isinstance(value, np.generic):
            return value.item()
        raise TypeError(f"expected what can be exchanged, got a {type(value).__name__}")

    def _unpacked(self, kind: type, packed: list) -> np.ndarray:
        dtype, shape, data = packed
        if isinstance(data, bytes):
            return np.ndarray(shape, dtype, bytearray(data))
        lent = np.ndarray(shape, dtype, self._memory, data)
        return lent.copy()

    def _laid_down(self, array: np.ndarray) -> tuple[int, int]:
        """Where in the shared memory a copy of it begins and ends."""
        start, end = self._used, self._used + array.nbytes
        if end > BLOCK_BYTES:
            raise ExchangeError(
                f"expected arrays of at most {BLOCK_BYTES:,} bytes in all, got at least {end:,}"
            )
        np.ndarray(array.shape, array.dtype, self._memory, start)[...] = array
        self._used = end + -end % _ALIGNMENT
        return start, end

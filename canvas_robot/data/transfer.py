"""One file over HTTP, into its place: resumed, retried, checked. Which one is decided elsewhere."""

from __future__ import annotations

import os
import re
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from threading import Event

import httpx2

# What a server or a proxy answers when trying again later may help.
_PASSING = (408, 425, 429, 500, 502, 503, 504)
_MOST_REDIRECTS = 5


class TransferError(RuntimeError):
    """A file could not be fetched. remedy: what to do about it."""

    def __init__(self, problem: str, remedy: str) -> None:
        super().__init__(f"{problem}; {remedy}")
        self.problem, self.remedy = problem, remedy


class TransferStopped(Exception):
    """The transfer was told to stop; what has come so far is kept."""


class _BrokenOff(Exception):
    """The connection failed; going on from where it did may help."""


@dataclass(frozen=True)
class RemoteFile:
    """A file of a server and its place here.

    most_bytes: a longer one is refused. check: raises ValueError when a fetched file, given by its
    path, is not what it should be.
    """

    url: str
    target: Path
    most_bytes: int
    check: Callable[[Path], None]

    @property
    def part(self) -> Path:
        """Holds the bytes that have come, until the file is whole and checked."""
        return self.target.with_name(f"{self.target.name}.part")

    def part_size(self) -> int:
        return self.part.stat().st_size if self.part.exists() else 0


@dataclass(frozen=True)
class Patience:
    """How long a server that fails is tried. A try that brings new bytes starts the count again.

    tries: at most so many in a row. first_wait_s, longest_wait_s: the pause between two doubles
    from the one to the other. timeout_s: without a byte for so long, a try has failed.
    """

    tries: int = 8
    first_wait_s: float = 1.0
    longest_wait_s: float = 60.0
    timeout_s: float = 30.0


def open_client(url: str, patience: Patience) -> httpx2.Client:
    """A client for a server, for any number of threads.

    Certificates are verified. Redirections are followed, but never from https to plain http.
    """

    def stay_secure(request: httpx2.Request) -> None:
        if request.url.scheme != "https":
            raise TransferError(
                f"{url}: expected https all the way, got a redirection to {request.url}",
                "look at that address in a browser, or choose another --url",
            )

    hooks = {"request": [stay_secure]} if url.startswith("https://") else {}
    return httpx2.Client(
        follow_redirects=True,
        max_redirects=_MOST_REDIRECTS,
        timeout=patience.timeout_s,
        headers={"User-Agent": "canvas-robot", "Accept-Encoding": "identity"},
        event_hooks=hooks,
    )


class Transfer:
    """Fetches files, each from where the last attempt at it ended.

    moved: told how many bytes have come; negative when bytes are thrown away. stop: ends the
    transfer within a chunk, or within `Patience.timeout_s` where the server is silent.
    """

    def __init__(
        self,
        client: httpx2.Client,
        patience: Patience,
        stop: Event,
        moved: Callable[[int], None] = lambda count: None,
    ) -> None:
        self._client, self._patience = client, patience
        self._stop, self._moved = stop, moved
        self._begun_anew: set[Path] = set()

    def fetch(self, file: RemoteFile) -> bool:
        """Bring the file into place; True when it went on from a part that was there before.

        A file stands in its place only after its check; another one there is replaced by it.
        Raises TransferError; TransferStopped when told to stop.
        """
        had_part = file.part_size() > 0
        self._complete(file)
        try:
            file.check(file.part)
        except ValueError:
            # The part may stem from another file of that name, or bytes from a bad line.
            self._discard(file)
            self._complete(file)
            self._check_again(file)
        os.replace(file.part, file.target)
        return had_part and file.target not in self._begun_anew

    def _check_again(self, file: RemoteFile) -> None:
        try:
            file.check(file.part)
        except ValueError as error:
            self._discard(file)
            raise TransferError(
                f"{file.url}: fetched twice, and damaged both times: {error}",
                "the server's copy is damaged: try another with --url, or do without it",
            ) from error

    def _complete(self, file: RemoteFile) -> None:
        """All bytes of the file in its part."""
        failures, most = 0, file.part_size()
        while True:
            try:
                return self._go_on(file)
            except _BrokenOff as error:
                size = file.part_size()
                failures, most = (1, size) if size > most else (failures + 1, most)
                if failures >= self._patience.tries:
                    raise TransferError(
                        f"{file.url}: {failures} tries failed, the last one: {error}",
                        "look at the network and run the command again: it goes on from here",
                    ) from error
            pause = self._patience.first_wait_s * 2.0 ** (failures - 1)
            if self._stop.wait(min(pause, self._patience.longest_wait_s)):
                raise TransferStopped

    def _go_on(self, file: RemoteFile) -> None:
        size = file.part_size()
        headers = {"Range": f"bytes={size}-"} if size else {}
        try:
            with self._client.stream("GET", file.url, headers=headers) as response:
                total = self._begin(file, size, response)
                self._append(file, response)
        except (httpx2.UnsupportedProtocol, httpx2.InvalidURL, httpx2.TooManyRedirects) as error:
            raise TransferError(
                f"{file.url}: {type(error).__name__}: {error}", "look at --url"
            ) from error
        except httpx2.TransportError as error:
            if _is_certificate_error(error):
                raise TransferError(
                    f"{file.url}: the server's certificate cannot be trusted: {error}",
                    "look at the clock and the network; certificates are always verified",
                ) from error
            raise _BrokenOff(f"{type(error).__name__}: {error}") from error
        if total is not None and file.part_size() != total:
            raise _BrokenOff(f"expected {total} bytes, got {file.part_size()}")

    def _begin(self, file: RemoteFile, size: int, response: httpx2.Response) -> int | None:
        """The file's whole size, if told. A part that the answer does not continue is removed."""
        status, total = response.status_code, None
        if status == 206:
            begin, total = _content_range(response)
            if begin != size:
                self._discard(file)
                raise _BrokenOff(f"asked for bytes from {size}, got bytes from {begin}")
        elif status == 200:
            self._discard(file)  # the server sends all of it
            total = _content_length(response)
        elif status == 416 and size:
            _, total = _content_range(response)
            if total != size:
                self._discard(file)
                raise _BrokenOff(f"the part had {size} bytes, the file has {total}")
        elif status in _PASSING:
            raise _BrokenOff(f"the server answers {status} {response.reason_phrase}")
        else:
            raise TransferError(
                f"{file.url}: the server answers {status} {response.reason_phrase}",
                "look at --url, --dataset and --version"
                if status in (404, 410)
                else "look at that address in a browser",
            )
        if total is not None and total > file.most_bytes:
            self._discard(file)
            raise _too_long(file, f"{total:,}")
        encoding = response.headers.get("Content-Encoding", "identity")
        if encoding != "identity":
            raise TransferError(
                f"{file.url}: expected the file as it is, got it encoded as {encoding!r}",
                "a proxy changes it: fetch past that, or choose another --url",
            )
        return total

    def _append(self, file: RemoteFile, response: httpx2.Response) -> None:
        if response.status_code == 416:
            return
        with file.part.open("ab") as part:
            for chunk in response.iter_raw():
                if self._stop.is_set():
                    raise TransferStopped
                part.write(chunk)
                self._moved(len(chunk))
                if part.tell() > file.most_bytes:
                    self._discard(file)
                    raise _too_long(file, "more")

    def _discard(self, file: RemoteFile) -> None:
        self._begun_anew.add(file.target)
        self._moved(-file.part_size())
        file.part.unlink(missing_ok=True)


def _too_long(file: RemoteFile, got: str) -> TransferError:
    return TransferError(
        f"{file.url}: expected at most {file.most_bytes:,} bytes, got {got}",
        "this is not the published file: choose another --url",
    )


def _content_range(response: httpx2.Response) -> tuple[int | None, int | None]:
    """(first byte, whole size) of a Content-Range such as "bytes 10-99/100" or "bytes */100"."""
    text = response.headers.get("Content-Range", "")
    match = re.fullmatch(r"bytes (?:(\d{1,18})-\d{1,18}|\*)/(?:(\d{1,18})|\*)", text, re.ASCII)
    first, size = match.groups() if match else (None, None)
    return (None if first is None else int(first)), (None if size is None else int(size))


def _content_length(response: httpx2.Response) -> int | None:
    text = response.headers.get("Content-Length", "")
    return int(text) if re.fullmatch(r"\d{1,18}", text, re.ASCII) else None


def _is_certificate_error(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return True
        error = error.__cause__ or error.__context__
    return False

"""A client that writes what it is told to, and sees how an answer is framed."""

from __future__ import annotations

import contextlib
import json
import socket
from typing import Any

PATIENCE = 10.0
"""Seconds that a client waits for the next byte."""


class Reply:
    """An answer as it comes. ``clean``: it has come to its end, and the client was told that this is all."""

    def __init__(self, connection: socket.socket, pending: bytes = b"") -> None:
        self.clean = False
        self._connection = connection
        self._pending = pending
        self._ended = False
        head = self._until(b"\r\n\r\n")
        while head.startswith(b"HTTP/1.1 1"):  # 100 Continue and its like announce the answer
            head = self._until(b"\r\n\r\n")
        first, *lines = head.removesuffix(b"\r\n\r\n").split(b"\r\n")
        self.status = int(first.split(b" ")[1])
        split = [line.partition(b":") for line in lines]
        self.headers = [(name.lower().decode("latin-1"), value.strip().decode("latin-1")) for name, _, value in split]
        length = self.header("content-length")
        self.is_chunked = self.header("transfer-encoding") == "chunked"
        self._left = int(length) if length is not None else None
        if self.status in (204, 304) or self._left == 0:
            self._end(clean=True)

    @property
    def pending(self) -> bytes:
        """What was read of whatever follows this answer."""
        return self._pending

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key == name]

    def header(self, name: str) -> str | None:
        found = self.all(name)
        return found[0] if found else None

    def json(self) -> Any:
        return json.loads(self.body())

    def piece(self) -> bytes:
        """The next chunk, or what one read brings of a body without chunks; nothing at the end."""
        if self._ended:
            return b""
        try:
            piece = self._chunk() if self.is_chunked else self._some()
        except (ConnectionError, EOFError, ValueError):
            self._end(clean=False)
            return b""
        return piece

    def body(self) -> bytes:
        """All that is still to come."""
        pieces = []
        while piece := self.piece():
            pieces.append(piece)
        return b"".join(pieces)

    def exactly(self, count: int) -> bytes:
        """The next bytes of the body, in however many pieces; fewer if it ends before."""
        data = b""
        while len(data) < count and (piece := self.piece()):
            data += piece
        return data

    def _chunk(self) -> bytes:
        size = int(self._until(b"\r\n").partition(b";")[0], 16)
        if size == 0:
            while self._until(b"\r\n") != b"\r\n":
                pass  # a trailer
            self._end(clean=True)
            return b""
        while len(self._pending) < size + 2:
            self._read()
        data, self._pending = self._pending[:size], self._pending[size + 2 :]
        return data

    def _some(self) -> bytes:
        if not self._pending:
            try:
                self._read()
            except EOFError:
                self._end(clean=self._left is None)  # without a length the end of the connection is the end
                return b""
        data, self._pending = self._pending[: self._left], self._pending[len(self._pending[: self._left]) :]
        if self._left is not None:
            self._left -= len(data)
            if self._left == 0:
                self._end(clean=True)
        return data

    def _until(self, end: bytes) -> bytes:
        while end not in self._pending:
            self._read()
        found, _, self._pending = self._pending.partition(end)
        return found + end

    def _read(self) -> None:
        data = self._connection.recv(262_144)
        if not data:
            raise EOFError("the gateway closed the connection")
        self._pending += data

    def _end(self, clean: bool) -> None:
        self._ended = True
        self.clean = clean


class Client:
    """One connection to the gateway."""

    def __init__(self, host: str, port: int) -> None:
        self.socket = socket.create_connection((host, port), PATIENCE)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._last: Reply | None = None

    def send(self, data: bytes) -> None:
        with contextlib.suppress(ConnectionError):  # an early answer may be there all the same
            self.socket.sendall(data)

    def reply(self) -> Reply:
        """The next answer. Its head must come."""
        pending = self._last.pending if self._last is not None else b""
        self._last = Reply(self.socket, pending)
        return self._last

    def is_closed(self) -> bool:
        """Whether the gateway closes the connection, and says nothing before."""
        try:
            return not self.socket.recv(1)
        except ConnectionError:
            return True

    def leave(self) -> None:
        self.socket.close()

"""The engine behind the gateway under test: it keeps each request as it came, and answers what a check wrote.

It runs in threads, for as long as the suite does: gateways look at their engines between the checks too. Which script
answers is told by a word in the prompt, which every gateway must pass on; so a request that a gateway repeats late,
when its check is over, disturbs no other.
"""

from __future__ import annotations

import contextlib
import json
import re
import socket
import struct
import threading
from collections.abc import Callable, Iterator

import httptools

from tests.router.proxy.scripted import Received, answer

PATIENCE = 10.0
"""Seconds that the engine waits for the gateway; much more than it takes, so that only a fault can use them up."""

WORD = re.compile(rb"word-[0-9a-f]{8}")


class Exchange:
    """One request, and the bytes that are sent for it."""

    def __init__(self, request: Received, connection: socket.socket) -> None:
        self.request = request
        self._connection = connection

    def send(self, data: bytes) -> None:
        self._connection.sendall(data)

    def send_what_goes(self, length: int, seconds: float) -> int:
        """Send a body of ``length`` until the gateway takes none for so long. Returns how much it took."""
        self._connection.settimeout(seconds)
        sent = 0
        try:
            while sent < length:
                sent += self._connection.send(bytes(min(65_536, length - sent)))
        except TimeoutError:
            pass
        self._connection.settimeout(PATIENCE)
        return sent

    def close(self) -> None:
        self._connection.shutdown(socket.SHUT_RDWR)

    def reset(self) -> None:
        """End the connection as a process does that is killed."""
        self._connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._connection.close()

    def drain(self) -> None:
        """Read the rest of the request, whatever it is, until the gateway closes the connection."""
        while self._connection.recv(262_144):
            pass

    def left(self) -> bool:
        """Wait for the gateway to close the connection; False if it does not."""
        try:
            return not self._connection.recv(1)
        except ConnectionError:
            return True
        except TimeoutError:
            return False


Script = Callable[[Exchange], None]


class Engine:
    """``received``: the requests by their word."""

    def __init__(self, listener: socket.socket, model: str) -> None:
        self.received: dict[bytes, list[Received]] = {}
        self._scripts: dict[bytes, tuple[Script | bytes, bool]] = {}
        self._listener = listener
        self._models = json.dumps({"object": "list", "data": [{"id": model, "object": "model"}]}).encode()
        self._connections = 0

    @property
    def port(self) -> int:
        port: int = self._listener.getsockname()[1]
        return port

    def answers(self, word: bytes, script: Script | bytes, early: bool) -> None:
        """``early``: without waiting for the end of the request."""
        self.received[word] = []
        self._scripts[word] = (script, early)

    def serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self._connections += 1
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                work = threading.Thread(target=self._converse, args=(connection, self._connections), daemon=True)
                work.start()

    def _converse(self, connection: socket.socket, number: int) -> None:
        with contextlib.suppress(OSError, httptools.HttpParserError), contextlib.closing(connection):
            while True:
                request = Received(number)
                connection.settimeout(600)  # until the gateway is done with it
                self._read(connection, request)
                connection.settimeout(PATIENCE)
                self._answer(request, Exchange(request, connection))

    def _read(self, connection: socket.socket, request: Received) -> None:
        parser = httptools.HttpRequestParser(request)
        while not request.complete:
            data = connection.recv(65_536)
            if not data:
                raise ConnectionResetError
            parser.feed_data(data)
            request.method = parser.get_method()
            if self._scripts.get(word_of(request), (b"", False))[1]:
                return

    def _answer(self, request: Received, exchange: Exchange) -> None:
        word = word_of(request)
        if request.method != b"POST" and word not in self._scripts:
            exchange.send(answer(b"" if request.method == b"HEAD" else self._models))
            return
        if word not in self._scripts:
            exchange.send(answer(b'{"error": {"message": "its check is over"}}', "410 Gone"))
            return
        self.received[word].append(request)
        script, _ = self._scripts[word]
        if isinstance(script, bytes):
            exchange.send(script)
        else:
            script(exchange)

    def over(self, word: bytes) -> None:
        self._scripts.pop(word, None)


def word_of(request: Received) -> bytes:
    found = WORD.search(request.target) or WORD.search(b"".join(request.pieces[:4]))
    return found[0] if found else b""


@contextlib.contextmanager
def engine(port: int, model: str) -> Iterator[Engine]:
    """An engine on ``port``; 0 for any that is free."""
    with socket.create_server(("127.0.0.1", port), backlog=128) as listener:
        running = Engine(listener, model)
        thread = threading.Thread(target=running.serve, daemon=True)
        thread.start()
        yield running
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        thread.join(PATIENCE)

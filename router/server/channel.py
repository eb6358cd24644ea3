"""What a gateway and the process that keeps its listening socket say to each other: ``router.succession``."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Mapping

LINE = 4096


class Channel:
    """``inherited``: the numbers of the channel's own file and, for any gateway but the first, of the listener's."""

    def __init__(self, inherited: str) -> None:
        own, *listener = map(int, inherited.split(","))
        self._socket = socket.socket(fileno=own)
        self.listener = socket.socket(fileno=listener[0]) if listener else None
        self._unread = b""

    def close(self) -> None:
        self._socket.close()
        if self.listener is not None:
            self.listener.close()

    def say(self, word: str) -> None:
        self._socket.sendall(word.encode() + b"\n")

    def wait_for_turn(self, listener: socket.socket) -> bool:
        """Be ready to serve on ``listener``, and wait until nobody else does. Blocks.

        Whether nobody was there before. Ends the process when nobody is there to tell.
        """
        if listener is not self.listener:
            socket.send_fds(self._socket, [b"listener\n"], [listener.fileno()])
        self.say("ready")
        while b"\n" not in self._unread:
            self._read()
        line, _, self._unread = self._unread.partition(b"\n")
        return line == b"go alone"

    def listen(self, acts: Mapping[str, Callable[[], None]]) -> None:
        """From now on do what is said, until the end of the channel ends the process."""
        self._socket.setblocking(False)
        asyncio.get_running_loop().add_reader(self._socket, self._hear, acts)
        self._hear(acts)

    def _hear(self, acts: Mapping[str, Callable[[], None]]) -> None:
        try:
            self._read()
        except BlockingIOError:
            pass
        *words, self._unread = self._unread.split(b"\n")
        for word in words:
            acts[word.decode()]()

    def _read(self) -> None:
        data = self._socket.recv(LINE)
        if not data:  # the keeper of the socket is gone, killed perhaps: what comes after it must find the port free
            os._exit(1)
        self._unread += data

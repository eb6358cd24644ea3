"""One listening socket, and the gateways that serve it one after the other.

This process keeps the socket and does nothing else: it starts the gateway as a process of its own, and at SIGUSR2 the
next one. Connections wait in the socket's queue whenever no gateway takes them. It imports nothing but the standard
library: it stays as it is while the program's files change.

    this process                      a gateway
                   <- listener        its socket, the first one's; a later one inherits it
                   <- ready           it has read the YAML, and holds the address
      leave ->                        to the one that serves: take no more connections
                   <- left            it decides nothing any more, and finishes what it has
                   <- renew           it was told by a signal what this process was meant to hear
                   <- empty           nothing of it is in flight on an engine: what it has is with the next one
      go ->                           to the new one: open the fleet and serve; "go alone" if nobody is before it
      alone ->                        those before it have ended, or are empty

Each may be killed at any moment. When this process goes, so do its gateways: their end of the channel is closed.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Coroutine, Sequence
from enum import Enum, auto
from typing import Any

log = logging.getLogger("router.succession")

FIRST_PAUSE, LAST_PAUSE = 0.1, 10.0
"""Seconds before a gateway that has died is replaced: doubled from the first to the last, unless it lived longer."""

LEAVE_SECONDS = 30.0
"""For which one that is to leave may go on as if it had not heard."""

FAILED = 1
MOST_BYTES, MOST_FILES = 4096, 1


class Stage(Enum):
    STARTING = auto()
    READY = auto()  # and waits for the one before it to leave
    SERVING = auto()
    LEAVING = auto()


class Gateway:
    """One gateway process, and the channel to it."""

    def __init__(self, process: asyncio.subprocess.Process, channel: socket.socket) -> None:
        self.process = process
        self.stage = Stage.STARTING
        self.empty = False
        self.began = asyncio.get_running_loop().time()
        self._channel = channel
        self._unread = b""

    @property
    def pid(self) -> int:
        return self.process.pid

    def say(self, word: str) -> None:
        try:
            self._channel.send(word.encode() + b"\n")
        except OSError:
            pass  # it has died, which is seen elsewhere

    def send(self, number: signal.Signals) -> None:
        try:
            self.process.send_signal(number)
        except ProcessLookupError:
            pass  # likewise

    def hear(self) -> tuple[list[str], list[int]]:
        """The words that have come, and the files."""
        try:
            data, files, _, _ = socket.recv_fds(self._channel, MOST_BYTES, MOST_FILES)
        except BlockingIOError:
            return [], []
        except OSError:
            data, files = b"", []
        if not data:
            self.close()
        *words, self._unread = (self._unread + data).split(b"\n")
        return [word.decode() for word in words], files

    def listen(self, heard: Callable[[Gateway], None]) -> None:
        asyncio.get_running_loop().add_reader(self._channel, heard, self)

    def close(self) -> None:
        if self._channel.fileno() >= 0:
            asyncio.get_running_loop().remove_reader(self._channel)
            self._channel.close()


class Succession:
    """``command`` starts a gateway; what it is to inherit is added to it."""

    def __init__(self, command: Sequence[str]) -> None:
        self._command = command
        self._gateways: list[Gateway] = []
        self._listener: int | None = None
        self._stopping = False
        self._awaited = False
        self._served = False
        self._code = FAILED
        self._pause = FIRST_PAUSE
        self._tasks: set[asyncio.Task[None]] = set()
        self._over = asyncio.Event()

    async def run(self) -> int:
        """Serve until told to stop. Returns the exit code."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop)
        loop.add_signal_handler(signal.SIGUSR1, self._pass_on, signal.SIGUSR1)
        loop.add_signal_handler(signal.SIGUSR2, self.renew)
        self._begin(self._start())
        await self._over.wait()
        for task in self._tasks:
            task.cancel()
        return self._code

    def renew(self) -> None:
        """Have the next gateway take over. Nothing happens while one is on its way, or all are to stop."""
        if not (self._stopping or self._awaited or self._in(Stage.READY)):
            self._begin(self._start())

    # -- what gateways say and do --------------------------------------------------------------------------------

    async def _start(self, pause: float = 0.0) -> None:
        self._awaited = True
        await asyncio.sleep(pause)
        if self._stopping:
            return
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        with theirs:
            inherited = [theirs.fileno(), *([self._listener] if self._listener is not None else [])]
            words = [*self._command, "--inherit", ",".join(map(str, inherited))]
            process = await asyncio.create_subprocess_exec(
                *words, stdin=subprocess.DEVNULL, pass_fds=inherited, process_group=0
            )
        gateway = Gateway(process, ours)
        self._gateways.append(gateway)
        gateway.listen(self._heard)
        if self._stopping:
            gateway.send(signal.SIGTERM)
        self._begin(self._wait(gateway))

    def _heard(self, gateway: Gateway) -> None:
        words, files = gateway.hear()
        for file in files:
            if self._listener is not None:
                os.close(self._listener)
            self._listener = file
        for word in words:
            if word == "ready" and gateway.stage is Stage.STARTING:
                gateway.stage, self._awaited = Stage.READY, False
                self._hand_over()
            elif word == "left" and gateway.stage is Stage.SERVING:
                gateway.stage = Stage.LEAVING
                self._hand_over()
            elif word == "empty":
                gateway.empty = True
                self._tell_if_alone()
            elif word == "renew" and gateway.stage is Stage.SERVING:
                self.renew()

    def _hand_over(self) -> None:
        """To the one that is ready, if there is one, as soon as nobody else serves."""
        following, serving = self._in(Stage.READY), self._in(Stage.SERVING)
        if following is None:
            return
        if serving is not None:
            serving.say("leave")
            self._begin(self._insist(serving))
            return
        following.stage, self._served = Stage.SERVING, True
        following.say("go alone" if self._is_alone() else "go")

    def _is_alone(self) -> bool:
        """Whether no gateway but the one that serves has anything in flight on an engine."""
        return all(one.stage is not Stage.LEAVING or one.empty for one in self._gateways)

    def _tell_if_alone(self) -> None:
        if (serving := self._in(Stage.SERVING)) is not None and self._is_alone():
            serving.say("alone")

    async def _insist(self, gateway: Gateway) -> None:
        await asyncio.sleep(LEAVE_SECONDS)
        if gateway.stage is Stage.SERVING and gateway in self._gateways:
            log.error("the gateway %d did not leave within %g s, and is killed", gateway.pid, LEAVE_SECONDS)
            gateway.send(signal.SIGKILL)

    async def _wait(self, gateway: Gateway) -> None:
        code = await gateway.process.wait()
        self._heard(gateway)  # its last words
        gateway.close()
        self._gateways.remove(gateway)
        self._ended(gateway, code)

    def _ended(self, gateway: Gateway, code: int) -> None:
        if gateway.stage is Stage.STARTING:
            self._awaited = False
        serving = self._in(Stage.SERVING)
        if gateway.stage is Stage.SERVING and code == 0:  # somebody else told it to stop
            self._stop()
        if gateway.stage is not Stage.LEAVING and serving is None:
            self._code = max(code, 0) or (FAILED if code else 0)
        if self._stopping or not (self._served or self._gateways):
            if not self._gateways:
                self._over.set()
        elif serving is not None:
            if gateway.stage is not Stage.LEAVING:
                log.error("the next gateway %s: %d serves on", _how(code), serving.pid)
            self._tell_if_alone()
        elif self._in(Stage.READY) is not None:
            self._hand_over()
        elif not self._awaited:
            log.error("the gateway %d %s, and another is started", gateway.pid, _how(code))
            lived = asyncio.get_running_loop().time() - gateway.began
            self._pause = FIRST_PAUSE if lived > LAST_PAUSE else min(LAST_PAUSE, 2 * self._pause)
            self._begin(self._start(self._pause))

    # -- within --------------------------------------------------------------------------------------------------

    def _stop(self) -> None:
        """Told again, gateways are told again: they end at once."""
        self._stopping = True
        if self._listener is not None:  # else whoever comes now would wait for nobody
            os.close(self._listener)
            self._listener = None
        for gateway in self._gateways:
            gateway.send(signal.SIGTERM)
        if not self._gateways:
            self._over.set()

    def _pass_on(self, number: signal.Signals) -> None:
        if (serving := self._in(Stage.SERVING)) is not None:
            serving.send(number)

    def _in(self, stage: Stage) -> Gateway | None:
        return next((one for one in self._gateways if one.stage is stage), None)

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _how(code: int) -> str:
    return f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"


def keep(options: Sequence[str]) -> int:
    """Run gateways as this program was run. ``options``: its own."""
    head = sys.orig_argv[: len(sys.orig_argv) - len(options)]
    command = [sys.executable, *head[1:], *options]
    return asyncio.run(Succession(command).run())

"""The first program in a pane. It takes argv, environment and folder from a private FIFO, and the engine runs below it.

It passes on what it is told, and ends as the engine ended, a moment later: tmux closes a terminal as soon as its first
program has ended, and what the kernel has not yet passed through by then, an engine's last words, is on no screen and
in no log. What nobody else would start again when it is killed, the gateway, it starts again itself.

Run by its file's path, isolated and without site-packages, so it must do with the standard library. The environment
passes through the FIFO only: it is on no command line and in no file.
"""

from __future__ import annotations

import json
import os
import resource
import select
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from types import FrameType
from typing import NoReturn

ONCE, GUARDED = "once", "guarded"
"""What it does with a program that was killed: it ends as well, or starts it again."""

PATIENCE_SECONDS = 30
LINGER_SECONDS = 0.1
CANNOT_RUN = 127

FIRST_PAUSE, LAST_PAUSE = 0.1, 10.0
"""Seconds before what was killed is started again: doubled from the first to the last, unless it lived longer."""

TYPED = frozenset({signal.SIGINT, signal.SIGQUIT})
STOPS = TYPED | {signal.SIGTERM, signal.SIGHUP}
PASSED_ON = STOPS | {signal.SIGUSR1, signal.SIGUSR2}


def main(manner: str, fifo: str) -> int:
    """Exit code of what it ran; below zero for the signal that ended it."""
    content = receive(fifo)
    if not content:
        complain("the launcher left before it said what to run")
        return CANNOT_RUN
    order = json.loads(content)
    raise_file_limit()
    argv, environment = order["argv"], {"TERM": os.environ.get("TERM", "screen"), **order["environment"]}
    try:
        os.chdir(order["folder"])
        return (Guard if manner == GUARDED else Program)(argv, environment).run()
    except OSError as failed:
        complain(f"cannot run {argv[0]}: {failed.strerror}")
        return CANNOT_RUN


class Program:
    """Runs a program, as a shell does in its terminal, and passes on to it what it is told itself."""

    alone = False
    """In a process group of its own, without a keyboard: what is typed in the terminal must be passed on."""

    def __init__(self, argv: Sequence[str], environment: Mapping[str, str]) -> None:
        self._argv = argv
        self._environment = environment
        self._program: subprocess.Popen[bytes] | None = None
        self._stopping = False
        self._told, self._tell = os.pipe()
        for number in PASSED_ON:
            signal.signal(number, self._hear)

    def run(self) -> int:
        """Until it ends: its exit code, below zero for a signal. Raises ``OSError`` when it cannot be run."""
        # What Python ignores, and this process catches, it finds as a shell leaves it.
        self._program = subprocess.Popen(
            self._argv,
            env=self._environment,
            stdin=subprocess.DEVNULL if self.alone else None,
            process_group=0 if self.alone else None,
        )
        if self._stopping:
            self._program.terminate()
        return self._program.wait()

    def _hear(self, number: int, _: FrameType | None) -> None:
        if number in TYPED and not self.alone:
            return  # the terminal has told everybody in it
        if number in STOPS:
            self._stopping = True
            os.write(self._tell, b"!")
        if self._program is not None:
            self._program.send_signal(number)


class Guard(Program):
    """Runs a program, again whenever it is killed."""

    alone = True  # a kill of this process ends it alone

    def run(self) -> int:
        """Until it ends by itself or is told to stop."""
        before = 0.0
        while True:
            began = time.monotonic()
            code = super().run()
            pause = pause_after(code, time.monotonic() - began, before)
            if self._stopping or pause is None:
                return code
            how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
            complain(f"what runs here {how}, and is started again in {pause:g} s")
            if select.select([self._told], [], [], pause)[0]:
                return 0
            before = pause


def pause_after(code: int, lived: float, before: float) -> float | None:
    """Seconds until it is started again; None: it is not. ``code``: negative for a signal.

    ``lived``: seconds. ``before``: the pause before it was started, 0 for the first time. One that ends by itself means
    to, but just after another was killed: that one may still have held the port.
    """
    if code == 0 or (code > 0 and (before == 0 or lived > LAST_PAUSE)):
        return None
    return FIRST_PAUSE if before == 0 or lived > LAST_PAUSE else min(LAST_PAUSE, 2 * before)


def receive(fifo: str) -> bytes:
    """All that the launcher writes; nothing when it does not come."""
    # Not blocking, for an open for reading would wait for a launcher that may have been killed.
    descriptor = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    waiting = select.poll()
    waiting.register(descriptor, select.POLLIN)
    if not waiting.poll(PATIENCE_SECONDS * 1000):
        return b""
    os.set_blocking(descriptor, True)
    with os.fdopen(descriptor, "rb") as stream:
        return stream.read()


def raise_file_limit() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (ValueError, OSError):  # macOS names no limit that it would accept
        pass


def complain(text: str) -> None:
    sys.stderr.write(f"torpor: {text}\n")


def end(code: int) -> NoReturn:
    """As what ran here has ended: with its exit ``code``, or by the same signal where that is below zero."""
    sys.stderr.flush()
    time.sleep(LINGER_SECONDS)
    if code < 0:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # its own core is enough
        if -code not in (signal.SIGKILL, signal.SIGSTOP):
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    sys.exit(code)


if __name__ == "__main__":
    end(main(*sys.argv[1:]))

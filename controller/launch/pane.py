"""The first program in a pane. It takes argv, environment and folder from a private FIFO and becomes the engine.

What nobody else would start again, the gateway, runs below it instead: it stays, and starts it again when it is killed.

Run by its file's path, isolated and without site-packages, so it must do with the standard library. The environment
passes through the FIFO only: it is on no command line and in no file, and the pane's pid is the engine's.
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

PATIENCE_SECONDS = 30
CANNOT_RUN = 127

FIRST_PAUSE, LAST_PAUSE = 0.1, 10.0
"""Seconds before what was killed is started again: doubled from the first to the last, unless it lived longer."""

STOPS = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT})
PASSED_ON = STOPS | {signal.SIGUSR1, signal.SIGUSR2}


def main(fifo: str) -> int:
    content = receive(fifo)
    if not content:
        complain("the launcher left before it said what to run")
        return CANNOT_RUN
    order = json.loads(content)
    raise_file_limit()
    # Python ignores these, and what is ignored stays so through exec: the engine is to find them as a shell leaves them
    for ignored in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(ignored, signal.SIG_DFL)
    argv, environment = order["argv"], {"TERM": os.environ.get("TERM", "screen"), **order["environment"]}
    try:
        os.chdir(order["folder"])
        if order["guarded"]:
            return Guard(argv, environment).run()
        os.execvpe(argv[0], argv, environment)
    except OSError as failed:
        complain(f"cannot run {argv[0]}: {failed.strerror}")
        return CANNOT_RUN


class Guard:
    """Runs a program, again whenever it is killed, and passes on to it what it is told itself."""

    def __init__(self, argv: Sequence[str], environment: Mapping[str, str]) -> None:
        self._argv = argv
        self._environment = environment
        self._program: subprocess.Popen[bytes] | None = None
        self._stopping = False
        self._told, self._tell = os.pipe()

    def run(self) -> int:
        """Until it ends by itself or is told to stop: its exit code. Raises ``OSError`` when it cannot be run."""
        for number in PASSED_ON:
            signal.signal(number, self._hear)
        before = 0.0
        while True:
            began = time.monotonic()
            code = self._once()
            pause = pause_after(code, time.monotonic() - began, before)
            if self._stopping or pause is None:
                return code if code >= 0 else 128 - code
            how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
            complain(f"what runs here {how}, and is started again in {pause:g} s")
            if select.select([self._told], [], [], pause)[0]:
                return 0
            before = pause

    def _once(self) -> int:
        # In a group of its own: what is typed in its terminal is passed on, and a kill of this program ends it alone.
        self._program = subprocess.Popen(self._argv, env=self._environment, stdin=subprocess.DEVNULL, process_group=0)
        if self._stopping:
            self._program.terminate()
        return self._program.wait()

    def _hear(self, number: int, _: FrameType | None) -> None:
        if number in STOPS:
            self._stopping = True
            os.write(self._tell, b"!")
        if self._program is not None:
            self._program.send_signal(number)


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


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))

"""The first program in a pane. It takes argv, environment and folder from a private FIFO and becomes the engine.

Run by its file's path, isolated and without site-packages, so it must do with the standard library. The environment
passes through the FIFO only: it is on no command line and in no file, and the pane's pid is the engine's.
"""

from __future__ import annotations

import json
import os
import resource
import select
import signal
import sys

PATIENCE_SECONDS = 30
CANNOT_RUN = 127


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
        os.execvpe(argv[0], argv, environment)
    except OSError as failed:
        complain(f"cannot run {argv[0]}: {failed.strerror}")
        return CANNOT_RUN


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

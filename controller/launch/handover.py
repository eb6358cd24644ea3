"""How a pane learns what to run: through a FIFO that only this user can open. Blocks."""

from __future__ import annotations

import errno
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType

from controller.launch import pane

PROGRAM = Path(pane.__file__).resolve()
PATIENCE_SECONDS = 20.0
POLL_SECONDS = 0.01


class HandoverFailed(Exception):
    """The pane did not take its orders."""


class Handover:
    """``argv`` starts the pane's program, ``give`` tells it what to run. A context manager: it leaves no file.

    ``guarded``: what it runs is started again when that is killed.
    """

    def __init__(self, *, guarded: bool = False) -> None:
        self._manner = pane.GUARDED if guarded else pane.ONCE

    def __enter__(self) -> Handover:
        self._folder = Path(tempfile.mkdtemp(prefix="torpor-"))  # 0700
        self._fifo = self._folder / "orders"
        os.mkfifo(self._fifo, 0o600)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def argv(self) -> tuple[str, ...]:
        return (sys.executable, "-I", "-S", str(PROGRAM), self._manner, str(self._fifo))

    def give(
        self, argv: Sequence[str], environment: Mapping[str, str], folder: Path, alive: Callable[[], bool]
    ) -> None:
        """Wait for the pane's program, which is ``alive`` meanwhile, and hand over."""
        orders = {"argv": list(argv), "environment": dict(environment), "folder": str(folder)}
        try:
            with os.fdopen(self._open(alive), "wb") as stream:
                stream.write(json.dumps(orders).encode())
        except BrokenPipeError:
            raise HandoverFailed("the pane's program ended while it was told what to run") from None

    def _open(self, alive: Callable[[], bool]) -> int:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                descriptor = os.open(self._fifo, os.O_WRONLY | os.O_NONBLOCK)
            except OSError as nobody:
                if nobody.errno != errno.ENXIO:
                    raise
            else:
                os.set_blocking(descriptor, True)
                return descriptor
            if not alive():
                raise HandoverFailed("the pane's program ended before it was told what to run")
            if time.monotonic() > deadline:
                raise HandoverFailed(f"the pane's program did not come up within {PATIENCE_SECONDS:g} s")
            time.sleep(POLL_SECONDS)

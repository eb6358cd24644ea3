"""``python -m router`` as a process of its own, in front of an engine that a test wrote."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from tests.ports import free_port
from tests.router.gateway import PATIENCE
from tests.router.proxy.scripted import Raw, Script, Scripted, raw_at


class Program:
    """``log``: what it has written so far. ``exit_code`` waits for its end."""

    def __init__(self, process: asyncio.subprocess.Process, port: int, engine: Scripted, log: Path) -> None:
        self.port = port
        self.engine = engine
        self.process = process
        self._log = log

    @property
    def log(self) -> str:
        return self._log.read_text()

    def signal(self, number: signal.Signals = signal.SIGTERM) -> None:
        self.process.send_signal(number)

    async def exit_code(self) -> int:
        async with asyncio.timeout(PATIENCE):
            return await self.process.wait()

    def raw(self) -> contextlib.AbstractAsyncContextManager[Raw]:
        return raw_at(self.port)


@contextlib.asynccontextmanager
async def program(folder: Path, script: Script | bytes, files: int = 1024, **router: Any) -> AsyncIterator[Program]:
    """``files``: how many it may have open. ``router``: what the YAML says in this section."""
    engine = Scripted(script)
    server = await asyncio.start_server(engine.serve, "127.0.0.1", 0)
    log = folder / "log"
    file = folder / "torpor.yaml"
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    instance = {"model": "one", "engine": "openai", "url": url}
    file.write_text(json.dumps({"router": router, "instances": [instance]}))  # JSON is YAML
    port = free_port()
    with log.open("wb") as sink:
        command = f'ulimit -n {files}; exec "$0" -m router --config {file} --port {port}'
        process = await asyncio.create_subprocess_exec("bash", "-c", command, sys.executable, stderr=sink)
    running = Program(process, port, engine, log)
    try:
        await _served(running)
        yield running
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        server.close()


async def _served(running: Program) -> None:
    async with asyncio.timeout(PATIENCE * 2):
        while True:
            assert running.process.returncode is None, running.log
            with contextlib.suppress(OSError, EOFError):
                async with running.raw() as client:
                    await client.ask("GET /health HTTP/1.1\nhost: x")
                    if "200" in await client.head():
                        return
            await asyncio.sleep(0.05)

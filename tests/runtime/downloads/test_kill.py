"""Downloads that are killed at any moment. ``TORPOR_KILLS=100`` does it a hundred times."""

from __future__ import annotations

import asyncio
import io
import os
import random
import sys
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from runtime.downloads.fetch import corruption
from tests.runtime.downloads.hub import Hub
from tests.runtime.downloads.stage import content, names
from tests.runtime.downloads.web_server import SLICE, Page, Web, web

pytestmark = [pytest.mark.anyio]

KILLS = int(os.environ.get("TORPOR_KILLS", "3"))
FILES = 6


@pytest.fixture
async def hub(site: Web) -> AsyncIterator[Hub]:
    async with web() as network:
        yield Hub(site, network)


class Trap:
    """Kills a process when the servers have sent so many slices, or a moment after the last of them."""

    def __init__(self, hub: Hub, slices: int) -> None:
        self.process: asyncio.subprocess.Process | None = None
        self._left = slices
        hub.site.on_slice = hub.network.on_slice = self._count

    def _count(self) -> None:
        self._left -= 1
        if self._left == 0 and self.process is not None:
            asyncio.get_running_loop().call_later(random.choice((0, 0, 0.005, 0.02, 0.05)), self.kill)

    def kill(self) -> None:
        if self.process is not None and self.process.returncode is None:
            self.process.kill()


async def run(hub: Hub, source: str, target: Path, trap: Trap | None = None) -> int:
    command = (sys.executable, "-m", "runtime", "fetch", source, str(target))
    environ = os.environ | {"HF_ENDPOINT": hub.endpoint}
    process = await asyncio.create_subprocess_exec(*command, env=environ, stdout=-3, stderr=-3)
    if trap is not None:
        trap.process = process
    return await process.wait()


def publish(hub: Hub, source: str, files: dict[str, bytes]) -> int:
    """As a repository, or as an archive. About as many slices as the servers will send for it."""
    if source == "org/lora":
        hub.publish(source, files)
        return sum(len(data) // SLICE + 1 for data in files.values())
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:gz", compresslevel=1) as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    body = made.getvalue()
    hub.site.pages["/lora.tar.gz"] = Page(body, f'"{hash(body)}"')
    return len(body) // SLICE + 1


@pytest.mark.timeout(60 + 5 * KILLS)
@pytest.mark.parametrize("source", ["org/lora", "/lora.tar.gz"])
async def test_whenever_it_is_killed_what_is_there_is_whole(source: str, hub: Hub, tmp_path: Path) -> None:
    """The artefact is the last one, the next one, or none; the run after goes on, and in the end nothing else is left.

    Every third time the source has changed meanwhile.
    """
    dice = random.Random()
    newest, last = dict[str, bytes](), dict[str, bytes]()
    place = hub.site.url(source) if source.startswith("/") else source
    target, killed, slices = tmp_path / "out", 0, 0
    for turn in range(KILLS):
        if turn % 3 == 0:
            sizes = [dice.choice((100, 300_000, 2 << 20)) for _ in range(FILES)]
            newest = {f"{index}": dice.randbytes(size) for index, size in enumerate(sizes)}
            slices = publish(hub, source, newest)
        killed += await run(hub, place, target, Trap(hub, dice.randint(1, slices + 4) if turn else 1)) == -9
        if target.exists():
            assert await corruption(target) is None
            assert content(target) in (last, newest)
            last = content(target)
    assert await run(hub, place, target) == 0
    assert content(target) == newest
    assert names(tmp_path) == ["out"]
    assert killed

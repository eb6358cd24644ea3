"""``python -m runtime fetch``, as a program."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import signal
import sys
from pathlib import Path

import pytest

from tests.runtime.downloads.hub import Hub
from tests.runtime.downloads.stage import content, names
from tests.runtime.downloads.web_server import Page, Web

pytestmark = pytest.mark.anyio

BODY = b"x" * 300_000


async def run(*words: str, **environ: str) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "runtime", "fetch", *words),
        env={name: value for name, value in os.environ.items() if not name.startswith("HF_")} | environ,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


async def test_the_path_goes_to_stdout_and_the_rest_to_stderr(site: Web, tmp_path: Path) -> None:
    """So that a script can use it. The environment says where the hub is."""
    hub = Hub(site, site)
    commit = hub.publish("org/lora", {"a": b"1"}, token="t")
    code, out, err = await run("org/lora", str(tmp_path / "out"), "--check", HF_ENDPOINT=hub.endpoint, HF_TOKEN="t")
    assert (code, out) == (0, f"{tmp_path / 'out'}\n")
    assert err == f"hf://org/lora at {commit}: 1 files, 1 bytes\n"
    assert content(tmp_path / "out") == {"a": b"1"}


async def test_kthenas_options(site: Web, tmp_path: Path) -> None:
    """``-s -o -w -c``; the config may be a file, which no list of processes shows."""
    site.pages["/a.bin"] = Page(BODY, wants="t")
    (tmp_path / "keys.json").write_text(json.dumps({"headers": {"Authorization": "Bearer t"}}))
    for config in ("@" + str(tmp_path / "keys.json"), (tmp_path / "keys.json").read_text()):
        target = str(tmp_path / "out")
        assert (await run("-s", site.url("/a.bin"), "-o", target, "-w", "2", "-c", config))[0] == 0
        assert content(tmp_path / "out") == {"a.bin": BODY}


MISTAKES = {
    "no target": (["org/lora"], 2, "SOURCE and TARGET are needed"),
    "unknown key": (["org/lora", "TARGET", "-c", '{"acess_key": "SECRET"}'], 2, "unknown key 'acess_key'"),
    "not an object": (["org/lora", "TARGET", "-c", "[1]"], 2, "--config must be a JSON object"),
    "no such file": (["org/lora", "TARGET", "-c", "@/nowhere"], 2, "/nowhere: No such file"),
    "unknown scheme": (["ftp://x/y", "TARGET"], 2, "unknown scheme ftp://"),
    "not found": (["/nowhere", "TARGET"], 1, "/nowhere does not exist (NotFound)"),
    "unreachable": (["http://127.0.0.1:1/a", "TARGET"], 1, "(SourceUnreachable, may be tried again)"),
}


@pytest.mark.parametrize("case", MISTAKES)
async def test_what_is_wrong_is_said_in_one_line(case: str, tmp_path: Path) -> None:
    """2 for the call, 1 for the download; no traceback, no secret."""
    words, code, message = MISTAKES[case]
    ended, out, err = await run(*(str(tmp_path / "out") if word == "TARGET" else word for word in words))
    assert (ended, out) == (code, "")
    assert message in err
    assert "Traceback" not in err
    assert "SECRET" not in err
    assert names(tmp_path) == []


async def test_interrupted_it_keeps_what_it_has_and_shows_a_bar_on_a_terminal(site: Web, tmp_path: Path) -> None:
    """Ctrl-C, and the same command again."""
    page = site.pages["/a.bin"] = Page(BODY, hold=asyncio.Event())
    command = (sys.executable, "-m", "runtime", "fetch", site.url("/a.bin"), str(tmp_path / "out"))
    ours, theirs = pty.openpty()
    process = await asyncio.create_subprocess_exec(*command, stderr=theirs, env=os.environ | {"TERM": "xterm"})
    os.close(theirs)
    await page.held.wait()
    shown = b""
    while b"0/1 files" not in shown:
        shown += await asyncio.to_thread(os.read, ours, 4096)
    process.send_signal(signal.SIGINT)
    assert await process.wait() == 130
    os.close(ours)
    assert names(tmp_path) == [".out.part"]
    page.hold = None
    assert (await run(site.url("/a.bin"), str(tmp_path / "out")))[0] == 0
    assert content(tmp_path / "out") == {"a.bin": BODY}

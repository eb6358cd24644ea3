"""The engine's metrics through the sidecar, and its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from runtime.engines.sim.options import SimOptions
from runtime.metrics import scrape
from runtime.metrics.names import VOCABULARIES
from runtime.metrics.standardize import Unparseable, standardize
from tests.router.gateway import served, until
from tests.runtime.engines.sim.stage import QUICK, SGLANG, readings, value_of
from tests.runtime.sidecar.stage import beside, options_for, running

pytestmark = pytest.mark.anyio

each_dialect = pytest.mark.parametrize("sim", [QUICK, SGLANG], ids=["vllm", "sglang"])
BROKEN = "<html>not what you think {</html>\n"


class Engine:
    """Serves a page as its metrics; holds it back while the gate is shut."""

    def __init__(self, page: str) -> None:
        self.page = page
        self.asked = 0
        self.gate = asyncio.Event()
        self.gate.set()

    async def metrics(self, _: Request) -> Response:
        self.asked += 1
        await self.gate.wait()
        return Response(self.page, headers={"content-type": "text/plain; version=1.0.0; charset=utf-8"})

    async def health(self, _: Request) -> Response:
        return Response()


@asynccontextmanager
async def engine(page: str) -> AsyncIterator[tuple[Engine, str]]:
    own = Engine(page)
    routes = [Route("/metrics", own.metrics), Route("/other", own.metrics), Route("/health", own.health)]
    async with served(Starlette(routes=routes)) as url:
        yield own, url


async def results(client: httpx2.AsyncClient) -> dict[str, float]:
    """How many scrapes had which result."""
    own = readings((await client.get("/metrics/runtime")).text)
    return {result: value_of(own, "torpor_runtime_scrapes_total", result=result) for result in scrape.RESULTS}


@each_dialect
@pytest.mark.parametrize("path", ["/metrics", "/metrics/"])
async def test_the_page(sim: SimOptions, path: str, tmp_path: Path) -> None:
    """Standard names beside the engine's own, one charset, no redirect."""
    async with beside(sim, tmp_path) as side:
        await side.sim.complete()
        answer = await side.get(path)
        assert (answer.status_code, answer.headers.get_list("content-type")) == (200, ["text/plain; charset=utf-8"])
        own, text = sim.dialect, readings(answer.text)
        for name in ("prompt_tokens_total", "generation_tokens_total"):
            assert value_of(text, f"torpor:{name}") == value_of(text, f"{own}:{name}") > 0
        assert await results(side.client) == {"standard": 1, "raw": 0, "fallback": 0, "failed": 0}


async def test_prefixes_and_originals_by_option(tmp_path: Path) -> None:
    """Kthena's and AIBrix's names for their dashboards."""
    for name in VOCABULARIES:
        async with beside(QUICK, tmp_path, vocabulary=VOCABULARIES[name], keep_originals=False) as side:
            page = (await side.get("/metrics")).text
        assert f"\n{name}:num_requests_waiting" in page
        assert "vllm:" not in page


@pytest.mark.parametrize(
    ("environ", "standard"),
    [
        ({}, True),
        ({"METRICS_ENABLE_TRANSFORMATION": "1", "METRICS_RAW_PASSTHROUGH_MODE": "0"}, True),
        ({"METRICS_ENABLE_TRANSFORMATION": "0"}, False),
        ({"METRICS_ENABLE_TRANSFORMATION": "0", "METRICS_RAW_PASSTHROUGH_MODE": "0"}, False),
        ({"METRICS_RAW_PASSTHROUGH_MODE": "1"}, False),
        ({"METRICS_RAW_PASSTHROUGH_MODE": "yes"}, False),
    ],
)
async def test_raw_by_the_environment(environ: dict[str, str], standard: bool, tmp_path: Path) -> None:
    """With AIBrix's variables and their priority; raw is to the letter."""
    async with beside(QUICK, tmp_path, environ=environ) as side:
        page = (await side.get("/metrics")).text
        assert ("torpor:" in page) is standard
        assert "vllm:num_requests_running" in page


async def test_what_cannot_be_read_is_passed_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """To the letter, with a count and a line in the log, and never a 500."""
    async with engine(BROKEN) as (own, url), running(options_for(url, "vllm", tmp_path)) as client:
        answer = await client.get("/metrics")
        assert (answer.status_code, answer.text) == (200, BROKEN)
        assert (await results(client))["fallback"] == 1
        assert "cannot be read" in caplog.text
        own.page = "# TYPE vllm:num_requests_running gauge\nvllm:num_requests_running 1\n"
        assert "torpor:num_requests_running 1.0" in (await client.get("/metrics")).text


async def test_a_bug_of_ours_is_no_failure_either(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The page goes through, the traceback into the log."""

    def broken(*_: object, **__: object) -> str:
        raise ZeroDivisionError

    monkeypatch.setattr(scrape, "standardize", broken)
    async with engine("a 1\n") as (_, url), running(options_for(url, "vllm", tmp_path)) as client:
        assert (await client.get("/metrics")).text == "a 1\n"
        assert (await results(client))["fallback"] == 1
    assert "ZeroDivisionError" in caplog.text


async def test_an_engine_that_is_down(tmp_path: Path) -> None:
    """502 with a clear body; its own page tells that it is down."""
    async with running(options_for("http://127.0.0.1:9", "sglang", tmp_path)) as client:
        answer = await client.get("/metrics")
        assert answer.status_code == 502
        assert answer.json()["detail"].startswith("Failed to fetch metrics from engine: ")
        own = readings((await client.get("/metrics/runtime")).text)
        assert value_of(own, "torpor_runtime_engine_up") == 0
        assert (await results(client))["failed"] == 1


async def test_its_own_metrics(tmp_path: Path) -> None:
    """Labels are of a known few, whatever is asked for."""
    async with beside(QUICK, tmp_path, pod="here") as side:
        source = side.adapter("m")
        await side.post("/v1/download_model", {"source": source, "output_dir": side.path("m")})
        for path in ("/health", "/a", "/b", "/v1/jobs/1", "/v1/jobs/2"):
            await side.get(path)
        await side.client.patch("/health")
        own = readings((await side.get("/metrics/runtime")).text)
    assert value_of(own, "torpor_runtime_engine_up") == 1
    assert value_of(own, "torpor_runtime_info", engine="vllm", pod="here") == 1
    assert value_of(own, "torpor_runtime_jobs", kind="download_model", status="completed") == 1
    assert value_of(own, "torpor_runtime_requests_total", path="/health", method="GET", status="200") == 1
    assert value_of(own, "torpor_runtime_requests_total", path="/health", method="other", status="405") == 1
    assert value_of(own, "torpor_runtime_requests_total", path="other", status="404") == 2
    assert value_of(own, "torpor_runtime_requests_total", path="/v1/jobs/{id}", status="404") == 2
    assert value_of(own, "torpor_runtime_request_seconds_count", path="/health") == 2


async def test_many_scrapers_are_one_look(tmp_path: Path) -> None:
    """Those that ask while one is under way join it, and one that leaves takes nothing from the others."""
    async with engine("a 1\n") as (own, url), running(options_for(url, "vllm", tmp_path)) as client:
        own.gate.clear()
        first = asyncio.create_task(client.get("/metrics"))
        await until(lambda: own.asked == 1)
        others = [asyncio.create_task(client.get("/metrics")) for _ in range(4)]
        assert (await client.get("/health")).status_code == 200
        first.cancel()
        own.gate.set()
        assert {answer.text for answer in await asyncio.gather(*others)} == {"a 1\n"}
        assert own.asked == 1
        await client.get("/metrics")
        assert own.asked == 2


async def test_a_scrape_holds_up_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page is read in a thread: while that one works, others are answered."""
    reading, go_on = threading.Event(), threading.Event()

    def slow(page: str, *more: object, **options: object) -> str:
        reading.set()
        assert go_on.wait(10)
        raise Unparseable("slow")

    monkeypatch.setattr(scrape, "standardize", slow)
    assert standardize is not slow
    async with engine("a 1\n") as (_, url), running(options_for(url, "vllm", tmp_path)) as client:
        scraping = asyncio.create_task(client.get("/metrics"))
        try:
            await until(reading.is_set)
            assert (await client.get("/health")).status_code == 200
            assert not scraping.done()
        finally:
            go_on.set()
        assert (await scraping).text == "a 1\n"


async def test_an_engine_that_hangs_is_given_up(tmp_path: Path) -> None:
    """After REQUEST_TIMEOUT, for all that wait."""
    options = options_for("http://x", "vllm", tmp_path)
    async with engine("a 1\n") as (own, url):
        own.gate.clear()
        options = options_for(url, "vllm", tmp_path, {"REQUEST_TIMEOUT": "0.05", "METRIC_SCRAPE_PATH": "/other"})
        async with running(options) as client:
            answer = await client.get("/metrics")
            assert (answer.status_code, "/other" in answer.json()["detail"]) == (502, True)
        own.gate.set()

"""A whole gateway over simulated engines, in the loop of the test, on real sockets.

    async with whole(tmp_path, Spec("one"), Spec("two", SGLANG)) as gateway:
        answer = await gateway.complete("one")          # through the gateway
        assert gateway.sims["one"].count("wake_calls") == 0
        await gateway.client.post("/model/sleep/one")
        assert gateway.state("one") is State.ASLEEP

An instance is called as its spec, and so is its model unless the options name another (``replica_of``). What a YAML
may say goes in as it is: ``Spec("one", yaml={"sleep_manager": {...}})`` for an instance, ``whole(...,
sleep_manager={...})`` for a section. ``engines`` and ``gateway`` are the two halves, for tests that stop the one and
keep the other. Everything is gone at the end, and it fails when a task is left over.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import weakref
from collections.abc import AsyncIterator, Generator, Iterable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from unittest import mock

import httpx2
import uvicorn
import yaml

import router.app
from controller.config.load import load
from controller.config.model import Config
from controller.fleet.fleet import Fleet
from controller.fleet.instance import Instance
from controller.fleet.state import State
from router.lifespan import Live, open_gateway
from router.server.server import GatewayServer
from runtime.engines.sim import server
from runtime.engines.sim.engine import Engine
from runtime.engines.sim.options import SimOptions
from runtime.engines.sim.server import Served, listen, serving
from runtime.engines.sim.text import NOISE
from tests.patience import PATIENCE as PATIENCE
from tests.patience import until as until
from tests.ports import free_port
from tests.runtime.engines.sim.stage import QUICK, readings, value_of

VLLM = replace(QUICK, model="", served_model_name=())
SGLANG = replace(VLLM, dialect="sglang")
DIALECTS = (VLLM, SGLANG)
AT_ONCE = {"min_sleep_duration": 0}
"""What nearly every test wants in ``sleep_manager``."""


@dataclass(frozen=True)
class Spec:
    """One instance: its name, how its engine is started, what else its entry in the YAML says."""

    name: str
    options: SimOptions = VLLM
    yaml: Mapping[str, Any] = field(default_factory=dict)

    @property
    def model(self) -> str:
        return self.options.model or self.name

    def entry(self, url: str) -> dict[str, Any]:
        args = ["--dialect", self.options.dialect]
        if self.options.enable_weights_cpu_backup:
            args.append("--enable-weights-cpu-backup")
        if self.options.enable_sleep_mode:
            args.append("--enable-sleep-mode")
        return {"name": self.name, "model": self.model, "engine": "sim", "url": url, "engine_args": args, **self.yaml}


def replica_of(model: str, name: str, options: SimOptions = VLLM, **more: Any) -> Spec:
    return Spec(name, replace(options, model=model), more)


class Sim:
    """One engine in this process. A test that lets it die says so: ``deaths.clear()``."""

    def __init__(self, spec: Spec, served: Served, deaths: list[int]) -> None:
        self.spec = spec
        self.url = served.url
        self.engine: Engine = served.engine
        self.deaths = deaths

    def count(self, name: str) -> int:
        """One of its own counters: sleep_calls, wake_calls, requests, requests_while_asleep, aborted_requests."""
        page = self.engine.page.render().decode()
        return int(value_of(readings(page), f"sim:{name}_total"))

    def fault(self, **faults: Any) -> None:
        self.engine.faults.add(faults)

    @property
    def running(self) -> int:
        return len(self.engine.scheduler.running)


@contextlib.asynccontextmanager
async def engines(*specs: Spec) -> AsyncIterator[dict[str, Sim]]:
    """Engines by name. Fails at the end if one has died."""
    async with contextlib.AsyncExitStack() as stack:
        sims: dict[str, Sim] = {}
        for spec in specs:
            deaths: list[int] = []
            with mock.patch.object(server, "listen", prompt_listener):
                options = replace(spec.options, model=spec.model)
                served = await stack.enter_async_context(serving(options, deaths.append))
            sims[spec.name] = Sim(spec, served, deaths)
        yield sims
        assert {name: sim.deaths for name, sim in sims.items() if sim.deaths} == {}


def prompt_listener(host: str, port: int) -> socket.socket:
    """Sends at once. asyncio's own loop, unlike uvloop, leaves Nagle's 40 ms on sockets made without a protocol."""
    listener = listen(host, port or free_port())  # whoever still asks one that is gone must not find this one
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # those that are accepted inherit it
    return listener


def write_yaml(folder: Path, entries: Iterable[Mapping[str, Any]], **sections: Any) -> Path:
    """A configuration file; its state database lies beside it."""
    file = folder / "torpor.yaml"
    sections.setdefault("sleep_manager", AT_ONCE)
    file.write_text(yaml.safe_dump({**sections, "instances": list(entries)}), encoding="utf-8")
    return file


class Gateway:
    """A running gateway: ``client`` for its HTTP side, ``live`` and ``fleet`` for what is behind it."""

    def __init__(self, config: Config, live: Live, client: httpx2.AsyncClient, sims: Mapping[str, Sim]) -> None:
        self.config = config
        self.live = live
        self.client = client
        self.sims = sims

    @property
    def fleet(self) -> Fleet:
        return self.live.fleet

    @property
    def url(self) -> str:
        return str(self.client.base_url)

    def instance(self, name: str) -> Instance:
        return self.fleet.instances[name]

    def state(self, name: str) -> State:
        return self.instance(name).state

    async def complete(self, model: str, prompt: str = "Once upon a time", **fields: Any) -> httpx2.Response:
        body = {"model": model, "prompt": prompt, "max_tokens": 5} | fields
        return await self.client.post("/v1/completions", json=body)

    async def sleep(self, name: str) -> httpx2.Response:
        return await self.client.post(f"/model/sleep/{name}")

    async def wake(self, name: str, *, force: bool = False) -> httpx2.Response:
        return await self.client.post(f"/model/wake/{name}", params={"force": "true"} if force else {})

    async def put_to_sleep(self, *names: str) -> None:
        for name in names:
            answer = await self.sleep(name)
            assert answer.status_code == 200, answer.text

    def hold_wake(self, name: str) -> asyncio.Event:
        """Its engine is told to wake once this is set."""
        engine, held = self.instance(name).engine, asyncio.Event()
        wake = engine.wake

        async def wake_then(level: int | None) -> None:
            await held.wait()
            await wake(level)

        engine.wake = wake_then  # type: ignore[method-assign]
        return held

    @property
    def in_flight(self) -> int:
        """Whatever is counted as in flight or waiting anywhere."""
        models = self.live.traffic.models.values()
        traffic = sum(model.in_flight + model.waiting for model in models)
        return traffic + sum(instance.in_flight for instance in self.fleet.instances.values())


class _Server(GatewayServer):
    """Leaves the signals of the process alone, and ends at once."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._stop = asyncio.Event()

    def stop(self) -> None:
        self.should_exit = True
        self._stop.set()

    async def main_loop(self) -> None:
        await self.on_tick(0)
        await self._stop.wait()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield


@contextlib.asynccontextmanager
async def served(app: Any, *, grace: float = 0.2) -> AsyncIterator[str]:
    """An ASGI application with its lifespan, on a free port. ``grace``: seconds that requests have at the end."""
    listener = prompt_listener("127.0.0.1", 0)
    port = listener.getsockname()[1]
    config = uvicorn.Config(
        app,
        http="httptools",
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        date_header=False,
        backlog=4096,
        timeout_graceful_shutdown=grace,  # type: ignore[arg-type]  # it only waits that long, and fractions work
    )
    running = _Server(config)
    task = asyncio.create_task(running.serve(sockets=[listener]))
    try:
        await until(lambda: running.started or task.done())
        assert running.started, "the gateway did not start; its log says why"
        yield f"http://127.0.0.1:{port}"
    finally:
        running.stop()
        await task


@contextlib.asynccontextmanager
async def gateway(
    folder: Path, sims: Mapping[str, Sim], environment: Mapping[str, str] | None = None, **sections: Any
) -> AsyncIterator[Gateway]:
    """A gateway over engines that run already. A second one in the same folder finds the state of the first."""
    config = load(write_yaml(folder, [sim.spec.entry(sim.url) for sim in sims.values()], **sections), environment or {})
    async with gateway_of(config, sims) as running:
        yield running


@contextlib.asynccontextmanager
async def gateway_of(config: Config, sims: Mapping[str, Sim]) -> AsyncIterator[Gateway]:
    """A gateway as a YAML wants it. ``sims``: the engines that are the test's."""
    lives: list[Live] = []

    @contextlib.asynccontextmanager
    async def remembered(*of: Any) -> AsyncIterator[Live]:
        async with open_gateway(*of) as live:
            lives.append(live)
            yield live

    limits = httpx2.Limits(max_connections=None)
    with mock.patch.object(router.app, "open_gateway", remembered):
        async with (
            no_task_left(),
            served(router.app.create_app(config)) as url,
            httpx2.AsyncClient(base_url=url, timeout=PATIENCE, limits=limits, trust_env=False, verify=False) as client,
        ):
            yield Gateway(config, lives[0], client, sims)


@contextlib.asynccontextmanager
async def whole(folder: Path, *specs: Spec, **sections: Any) -> AsyncIterator[Gateway]:
    """Engines, and a gateway over them."""
    async with engines(*specs) as sims, gateway(folder, sims, **sections) as running:
        yield running


_ours: ContextVar[weakref.WeakSet[asyncio.Task[Any]] | None] = ContextVar("tasks of the gateway", default=None)


@contextlib.asynccontextmanager
async def no_task_left() -> AsyncIterator[None]:
    """Fail when a task that was begun inside still runs at the end. Engines that were there before have their own."""
    loop = asyncio.get_running_loop()
    begun: weakref.WeakSet[asyncio.Task[Any]] = weakref.WeakSet()

    def factory(loop: asyncio.AbstractEventLoop, work: Any, **more: Any) -> asyncio.Task[Any]:
        task: asyncio.Task[Any] = asyncio.Task(work, loop=loop, **more)
        if (ours := _ours.get()) is not None:
            ours.add(task)
        return task

    loop.set_task_factory(factory)
    outer = _ours.get()
    _ours.set(begun)
    try:
        yield
    finally:
        _ours.set(outer)
    await until(lambda: all(task.done() for task in begun))


def text_of(answer: httpx2.Response) -> str:
    assert answer.status_code == 200, answer.text
    text: str = answer.json()["choices"][0]["text"]
    return text


def is_gibberish(text: str) -> bool:
    """What an engine says whose weights are gone."""
    return any(noise in text for noise in NOISE)


def code_of(answer: httpx2.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


def codes_of(answers: Sequence[httpx2.Response]) -> set[int]:
    return {answer.status_code for answer in answers}

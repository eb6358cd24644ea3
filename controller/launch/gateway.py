"""The gateway as the launcher asks it to change: over HTTP, as any other program on this machine would."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx2

from controller.config.model import Config
from controller.launch.unit import owner_of, router_url
from controller.residency.memory import Memory
from runtime.engines.control import PROBE_SECONDS

CALL_SECONDS = 60.0
"""Reading a YAML, and waiting for its turn behind another change."""


class GatewayRefused(Exception):
    """It answered, and did not do it; the message says why. ``status``: HTTP's."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class NoGateway(Exception):
    """Nobody answers at its address."""


@dataclass(frozen=True, slots=True)
class GatewayPlan:
    """What it would change, in lines. ``anew``: what it reads only when it is started."""

    in_place: Sequence[str]
    anew: Sequence[str]


@dataclass(frozen=True, slots=True)
class Books:
    """In bytes, by place. ``awake``: what each instance takes then. ``free``: below 0 where too much is held."""

    awake: Mapping[str, Memory]
    free: Memory
    capacity: Memory


class Gateway:
    def __init__(self, config: Config, client: httpx2.AsyncClient) -> None:
        self.url = router_url(config)
        self._owner = owner_of(config.file)
        self._client = client
        self._headers = {"authorization": f"Bearer {config.api_key}"} if config.api_key else {}

    async def plan(self) -> GatewayPlan:
        """Raises ``NoGateway`` and ``GatewayRefused``, as all of these do."""
        return _plan(await self._call("GET", "/admin/reload"))

    async def apply(self) -> GatewayPlan:
        """What is left to do is in ``anew``."""
        done = await self._call("POST", "/admin/reload")
        return GatewayPlan(_plan(done["found"]).in_place, _plan(done["left"]).anew)

    async def drain(self, name: str, seconds: float) -> None:
        """Out of service, and empty when this returns."""
        params = {"seconds": f"{seconds:g}"}
        await self._call("POST", f"/admin/drain/{quote(name)}", params, seconds + CALL_SECONDS)

    async def books(self) -> Books:
        """One that is out of service counts as awake."""
        found = await self._call("GET", "/residency", seconds=PROBE_SECONDS)
        try:
            return Books(
                {name: one["awake"] for name, one in found["instances"].items()},
                *({name: place[key] for name, place in found["places"].items()} for key in ("free", "capacity")),
            )
        except (AttributeError, LookupError, TypeError):
            raise self._foreign() from None

    async def is_ours(self) -> bool:
        """Whether it is the gateway of this YAML; another one may have engines of the same names."""
        found = await self._call("GET", "/get_server_info", seconds=PROBE_SECONDS)
        try:
            return owner_of(Path(found["config_file"])) == self._owner
        except (LookupError, TypeError):
            raise self._foreign() from None

    async def admit(self, name: str) -> None:
        await self._call("POST", f"/admin/admit/{quote(name)}")

    async def _call(
        self, method: str, path: str, params: dict[str, str] | None = None, seconds: float = CALL_SECONDS
    ) -> Any:
        try:
            answer = await self._client.request(
                method, self.url + path, params=params, headers=self._headers, timeout=seconds
            )
        except httpx2.HTTPError as silent:
            raise NoGateway(f"no gateway answers at {self.url}: {silent or type(silent).__name__}") from silent
        try:
            content = answer.json()
            if answer.status_code == 200:
                return content
            message = str(content["error"]["message"])
        except (ValueError, LookupError, TypeError):
            raise self._foreign() from None
        raise GatewayRefused(answer.status_code, message)

    def _foreign(self) -> NoGateway:
        return NoGateway(f"what answers at {self.url} is no gateway of this version")


def _plan(found: Any) -> GatewayPlan:
    own = [one for one in found["instances"] if one["step"] == "in place"]
    places = [f"{one['name']}: {change['key']}: {_arrow(change)}" for one in own for change in one["changes"]]
    settings = [f"{change['key']}: {_arrow(change)}" for change in found["settings"]]
    return GatewayPlan([*settings, *places], [f"{change['key']}: {_arrow(change)}" for change in found["gateway"]])


def _arrow(change: Any) -> str:
    return f"{change['old']} -> {change['new']}"

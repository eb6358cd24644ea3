"""One engine's control calls over HTTP: its address, its key, its deadlines, and errors in our own words."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from typing import Any

import httpx2

from runtime.engines.base import EngineRefused, EngineTimeout, EngineUnreachable
from runtime.engines.glance import Address, Answer
from runtime.engines.spec import EngineSpec

PROBE_SECONDS = 5.0
LONGEST_TEXT = 4000


def open_client() -> httpx2.AsyncClient:
    """The client all engines share. Idle connections go before an engine's keep-alive (5 s) can close them.

    Trusts whom requests trust: the system's authorities, or those that ``SSL_CERT_FILE`` names.
    """
    limits = httpx2.Limits(max_connections=None, max_keepalive_connections=64, keepalive_expiry=2.0)
    return httpx2.AsyncClient(limits=limits, verify=ssl.create_default_context(), trust_env=False)


class Control:
    """Calls to one engine. Every failure becomes an ``EngineError`` that names the engine and the call."""

    def __init__(self, spec: EngineSpec, client: httpx2.AsyncClient) -> None:
        self.name = spec.name
        self.metrics_path = spec.metrics_path
        self._base = spec.base_url
        self._address = Address(spec.base_url, spec.api_key)
        self._call_seconds = spec.call_seconds
        self._client = client
        self._headers = {"authorization": f"Bearer {spec.api_key}"} if spec.api_key else {}

    async def send(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        json: Any = None,
        timeout: float = PROBE_SECONDS,
    ) -> httpx2.Response:
        """Return whatever the engine answers, errors too; raise only when it does not answer."""
        operation = f"{method} {path}"
        try:
            return await self._client.request(
                method, self._base + path, params=params, json=json, headers=self._headers, timeout=timeout
            )
        except httpx2.TimeoutException as late:
            raise EngineTimeout(self.name, operation, f"no answer within {timeout:g} s") from late
        except httpx2.HTTPError as broken:
            raise EngineUnreachable(self.name, operation, str(broken) or type(broken).__name__) from broken

    async def call(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        json: Any = None,
        timeout: float | None = None,
    ) -> httpx2.Response:
        """As ``send``, but with the engine's own deadline, and an answer of 400 or above raises ``EngineRefused``."""
        seconds = self._call_seconds if timeout is None else timeout
        answer = await self.send(method, path, params=params, json=json, timeout=seconds)
        if answer.status_code >= 400:
            raise self.refusal(answer)
        return answer

    def refusal(self, answer: httpx2.Response, status: int | None = None) -> EngineRefused:
        operation = f"{answer.request.method} {answer.request.url.path}"
        return EngineRefused(self.name, operation, status or answer.status_code, answer.text[:LONGEST_TEXT])

    async def metrics(self, timeout: float | None = None) -> str:
        return (await self.call("GET", self.metrics_path, timeout=timeout)).text

    def field(self, answer: httpx2.Response, key: str) -> Any:
        """One value of a JSON answer; ``EngineRefused`` when it has another shape than its API promises."""
        try:
            return answer.json()[key]
        except (ValueError, LookupError, TypeError):
            operation = f"{answer.request.method} {answer.request.url.path}"
            raise EngineRefused(self.name, operation, 502, f"no {key!r} in {answer.text[:200]!r}") from None

    async def look(self, path: str) -> Answer:
        """A GET that costs next to nothing, for what is asked again and again. Returns errors too, as ``send`` does."""
        seconds = min(PROBE_SECONDS, self._call_seconds)
        try:
            return await self._address.get(path, seconds)
        except TimeoutError as late:
            raise EngineTimeout(self.name, f"GET {path}", f"no answer within {seconds:g} s") from late
        except OSError as broken:
            raise EngineUnreachable(self.name, f"GET {path}", str(broken)) from broken

    async def probe(self, path: str) -> int | None:
        """The status of a cheap GET: 0 when nobody listens, None when the answer is late."""
        try:
            return (await self.look(path)).status
        except EngineUnreachable:
            return 0
        except EngineTimeout:
            return None

"""A running gateway's adapters, as the command line asks for them."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

import httpx2

from controller.adapters.manifest import AdapterManifest
from controller.config.model import Config
from controller.config.resolve import ANY_ADDRESS

SECONDS = 30.0


class GatewayRefused(Exception):
    """The gateway said no, or is not there; the message says which."""


class Remote:
    """Calls to the gateway of ``config``, with its own key."""

    def __init__(self, config: Config) -> None:
        host = ANY_ADDRESS.get(config.router.router_host, config.router.router_host)
        host = f"[{host}]" if ":" in host else host
        self._url = f"http://{host}:{config.router.router_port}"
        self._headers = {"authorization": f"Bearer {config.api_key}"} if config.api_key else {}

    def apply(self, manifest: AdapterManifest) -> Any:
        return self._call("PUT", f"/adapters/{quote(manifest.name)}", manifest.spec.dump())

    def every(self) -> list[Any]:
        found = self._call("GET", "/adapters")["data"]
        assert isinstance(found, list)
        return found

    def one(self, name: str) -> Any:
        return self._call("GET", f"/adapters/{quote(name, safe='')}")

    def events(self, name: str) -> list[Any]:
        found = self._call("GET", f"/adapters/{quote(name, safe='')}/events")["data"]
        assert isinstance(found, list)
        return found

    def delete(self, name: str) -> Any:
        return self._call("DELETE", f"/adapters/{quote(name, safe='')}")

    def _call(self, method: str, path: str, body: Any = None) -> Any:
        """The JSON answer. Raises ``GatewayRefused``."""
        try:
            with httpx2.Client(timeout=SECONDS, trust_env=False) as client:
                answer = client.request(method, self._url + path, json=body, headers=self._headers)
        except httpx2.HTTPError as broken:
            raise GatewayRefused(f"no gateway answers at {self._url}: {broken or type(broken).__name__}") from broken
        try:
            found = answer.json()
        except json.JSONDecodeError:
            found = None
        if answer.status_code >= 400 or not isinstance(found, dict):
            raise GatewayRefused(_reason(answer.status_code, found))
        return found


def _reason(status: int, body: Any) -> str:
    error = body.get("error") if isinstance(body, dict) else None
    message = error.get("message") if isinstance(error, dict) else None
    return f"{message or 'it is no gateway'} ({status})"

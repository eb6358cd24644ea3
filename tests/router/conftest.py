"""The two ways to a client: the gateway's own protocol, as ``python -m router`` serves, and plain ASGI."""

from __future__ import annotations

import pytest
from uvicorn.config import HTTP_PROTOCOLS

DIRECT = "router.server.protocol:DirectProtocol"
PLAIN = "uvicorn.protocols.http.httptools_impl:HttpToolsProtocol"


@pytest.fixture(autouse=True)
def direct_door(monkeypatch: pytest.MonkeyPatch) -> None:
    """As ``python -m router`` does it."""
    monkeypatch.setitem(HTTP_PROTOCOLS, "httptools", DIRECT)


@pytest.fixture(params=["direct", "asgi"])
def each_door(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, direct_door: None) -> None:
    """Both, one after the other."""
    if request.param == "asgi":
        monkeypatch.setitem(HTTP_PROTOCOLS, "httptools", PLAIN)


@pytest.fixture
def asgi_door(monkeypatch: pytest.MonkeyPatch, direct_door: None) -> None:
    """As behind any other server."""
    monkeypatch.setitem(HTTP_PROTOCOLS, "httptools", PLAIN)

"""Servers with limits that a test can reach."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
from uvicorn.config import HTTP_PROTOCOLS

from router.server import server
from router.server.limits import SECONDS, Limits, Stage
from router.server.protocol import DirectProtocol

Limited = Callable[..., None]


@pytest.fixture
def limited(monkeypatch: pytest.MonkeyPatch, direct_door: None) -> Limited:
    """``limited({Stage.HEAD: 0.2}, connections=3)``: what is not named stays as it is."""

    def limit(seconds: dict[Stage, float] | None = None, **others: int) -> None:
        monkeypatch.setattr(server, "LOOK_SECONDS", 0.03)
        limits = Limits(seconds=dict(SECONDS) | (seconds or {}), **others)
        monkeypatch.setitem(HTTP_PROTOCOLS, "httptools", partial(DirectProtocol, limits=limits))

    return limit

"""Torpor says who answered, and who failed: `x-torpor-instance`, `x-torpor-error-source`."""

from __future__ import annotations

import pytest

from tests.conformance.engine import Exchange
from tests.conformance.hop import FINE, Hop, stream
from tests.router.proxy.scripted import answer

pytestmark = pytest.mark.torpor


def test_an_answer_names_its_instance(hop: Hop) -> None:
    """Streamed or not; an answer that is no error has no source of one."""
    for script in (FINE, stream(b"data: 1\n\n")):
        hop.answers(script)
        reply = hop.post()
        assert reply.all("x-torpor-instance") == ["conformance"]
        assert reply.header("x-torpor-error-source") is None


@pytest.mark.parametrize("status", ["400 Bad Request", "503 Service Unavailable"], ids=["400", "503"])
def test_an_error_of_the_engine_is_the_engines(hop: Hop, status: str) -> None:
    hop.answers(answer(b"{}", status))
    reply = hop.post()
    assert reply.all("x-torpor-error-source") == ["engine"]
    assert reply.all("x-torpor-instance") == ["conformance"]


def test_what_the_gateway_says_is_the_gateways(hop: Hop) -> None:
    """Of a request that it refuses, and of an engine that gave no answer."""
    hop.answers(Exchange.close)
    assert hop.post().all("x-torpor-error-source") == ["gateway"]
    assert hop.post({**hop.body(), "model": "no/such"}).all("x-torpor-error-source") == ["gateway"]


def test_a_gateway_behind_a_gateway_does_not_speak_for_this_one(hop: Hop) -> None:
    """Its marks are about instances and failures that this one's clients do not know."""
    theirs = ("x-torpor-instance: theirs", "x-torpor-error-source: gateway")
    hop.answers(answer(b"{}", "502 Bad Gateway", *theirs))
    reply = hop.post()
    assert reply.all("x-torpor-instance") == ["conformance"]
    assert reply.all("x-torpor-error-source") == ["engine"]

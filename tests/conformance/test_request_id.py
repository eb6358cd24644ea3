"""One id names a request everywhere: the client's own, or one that the gateway makes."""

from __future__ import annotations

from tests.conformance.hop import Hop
from tests.router.proxy.scripted import answer

OWN = "X-Request-Id: mine-7/a"


def test_the_clients_reaches_the_engine(hop: Hop) -> None:
    hop.post(hop.body(), OWN)
    assert hop.request.all("x-request-id") == [b"mine-7/a"]


def test_the_clients_comes_back(hop: Hop) -> None:
    """An engine that says nothing of it changes nothing."""
    assert hop.post(hop.body(), OWN).all("x-request-id") == ["mine-7/a"]


def test_one_is_made(hop: Hop) -> None:
    """The engine and the client see the same, and each request another."""
    made = [hop.post().header("x-request-id") for _ in range(2)]
    assert [request.all("x-request-id") for request in hop.received] == [[(one or "").encode()] for one in made]
    assert made[0]
    assert made[0] != made[1]


def test_errors_have_it_too(hop: Hop) -> None:
    """Of the engine, and of the gateway itself."""
    hop.answers(answer(b"{}", "400 Bad Request"))
    assert hop.post(hop.body(), OWN).header("x-request-id") == "mine-7/a"
    assert hop.post({**hop.body(), "model": "no/such"}, OWN).header("x-request-id") == "mine-7/a"

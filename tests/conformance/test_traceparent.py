"""A trace goes on through the gateway (W3C Trace Context)."""

from __future__ import annotations

import pytest

from tests.conformance.hop import Hop

TRACE = "0af7651916cd43dd8448eb211c80319c"


def test_the_trace_is_the_same(hop: Hop) -> None:
    """A gateway that makes a span of its own may name another parent, never another trace."""
    hop.post(hop.body(), f"traceparent: 00-{TRACE}-b7ad6b7169203331-01")
    assert len(hop.request.all("traceparent")) == 1
    version, trace, _, flags = hop.request.all("traceparent")[0].decode().split("-")
    assert (version, trace, flags) == ("00", TRACE, "01")


@pytest.mark.parametrize(
    "header", ["tracestate: congo=t61rcWkgMzE,rojo=00f067aa0ba902b7", "baggage: user=1,plan=a%20b"]
)
def test_what_goes_with_it_arrives(hop: Hop, header: str) -> None:
    name, _, value = header.partition(": ")
    hop.post(hop.body(), f"traceparent: 00-{TRACE}-b7ad6b7169203331-01", header)
    assert hop.request.all(name) == [value.encode()]

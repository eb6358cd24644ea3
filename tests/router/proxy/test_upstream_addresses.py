"""Engines that are reached by IPv6, and by TLS."""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
from pathlib import Path

import pytest

from tests.router.gateway import Gateway, code_of
from tests.router.proxy.scripted import answer, chunk, scripted

pytestmark = pytest.mark.anyio

STREAM = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


def has_ipv6() -> bool:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")
async def test_an_engine_with_an_ipv6_address(tmp_path: Path) -> None:
    """It is ready, it answers, and it is called by its address in brackets."""
    async with scripted(tmp_path, answer(b"{}"), host="::1") as (gateway, engine):
        assert gateway.state("one") == "ready"
        assert (await gateway.complete("one")).status_code == 200
        port = gateway.instance("one").config.spec.base_url.rsplit(":", 1)[1]
        assert engine.received[0].all("host") == [f"[::1]:{port}".encode()]


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for this machine, its key, and the authority that signed it, which nobody trusts."""
    program = shutil.which("openssl")
    if program is None:
        pytest.skip("there is no openssl here to make certificates")
    folder = tmp_path_factory.mktemp("certificates")

    def openssl(*arguments: str) -> None:
        subprocess.run([program, *arguments], cwd=folder, check=True, capture_output=True, timeout=30)

    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    openssl("req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.pem", "-days", "2", "-subj", "/CN=nobody")
    openssl("req", *key, "-keyout", "engine.key", "-out", "engine.csr", "-subj", "/CN=engine")
    (folder / "names").write_text("subjectAltName = IP:127.0.0.1\n")
    signer = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2", "-extfile", "names")
    openssl("x509", "-req", "-in", "engine.csr", "-out", "engine.pem", *signer)
    return folder


@pytest.fixture
def tls(certificate: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate / "engine.pem", certificate / "engine.key")
    return context


async def stream(gateway: Gateway) -> bytes:
    body = {"model": "one", "prompt": "x", "stream": True}
    return (await gateway.client.post("/v1/completions", json=body)).content


async def test_an_engine_behind_tls(
    tmp_path: Path, certificate: Path, tls: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An authority of one's own is named by SSL_CERT_FILE: for requests, and for looking after the engine."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate / "ca.pem"))
    script = STREAM + chunk(b"data: 1\n\n") + b"0\r\n\r\n"
    async with scripted(tmp_path, script, tls=tls) as (gateway, engine):
        assert gateway.state("one") == "ready"
        assert [await stream(gateway) for _ in range(5)] == [b"data: 1\n\n"] * 5
        assert len({request.connection for request in engine.received}) == 1


async def test_a_large_answer_through_tls(
    tmp_path: Path, certificate: Path, tls: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many records, in both directions."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate / "ca.pem"))
    large = b'"%b"' % (b"x" * 3_000_000)
    async with scripted(tmp_path, answer(large), tls=tls) as (gateway, engine):
        reply = await gateway.complete("one", prompt="y" * 3_000_000)
        assert reply.content == large
        assert b"y" * 3_000_000 in engine.received[0].body


async def test_an_engine_that_nobody_vouches_for_is_not_asked(tmp_path: Path, tls: ssl.SSLContext) -> None:
    """Its key and the prompts would go to whoever answers: 502, and nothing was sent."""
    async with scripted(tmp_path, answer(b"{}"), tls=tls) as (gateway, engine):
        reply = await gateway.complete("one")
        assert code_of(reply) == (502, "engine_unreachable")
        assert engine.received == []

"""Forms: the model is found in them and renamed in them, and every other byte stays."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.errors import InvalidRequest
from router.proxy.body import Peek, peek, rename
from tests.router.gateway import VLLM, Spec, code_of, whole
from tests.router.proxy.scripted import answer, scripted

pytestmark = pytest.mark.anyio

SOUND = bytes(range(256)) * 40 + b"\r\n--bound\r\n--boundar"
HEADERS = [(b"content-type", b"multipart/form-data; boundary=boundary")]


def part(name: str, value: bytes, more: str = "", kind: str = "") -> bytes:
    lines = f'--boundary\r\nContent-Disposition: form-data; name="{name}"{more}\r\n{kind}\r\n'
    return lines.encode() + value + b"\r\n"


def form(*parts: bytes) -> bytes:
    return b"".join(parts) + b"--boundary--\r\n"


FILE = part("file", SOUND, '; filename="a.wav"', "Content-Type: audio/wav\r\n")


async def test_sound_is_transcribed_by_an_alias(tmp_path: Path) -> None:
    """The engine knows one name, the client uses another, in forms and in JSON."""
    tiny = Spec("tiny", replace(VLLM, model="org/tiny"), {"aliases": ["whisper", "a/much-longer-name-than-the-other"]})
    async with whole(tmp_path, tiny) as gateway:
        for name in ("org/tiny", "whisper", "a/much-longer-name-than-the-other"):
            files = {"file": ("a.wav", SOUND, "audio/wav")}
            heard = await gateway.client.post(
                "/v1/audio/transcriptions", files=files, data={"model": name, "language": "en"}
            )
            assert heard.status_code == 200, heard.text
            assert heard.json()["text"].startswith(f"{len(SOUND)} bytes")
            said = await gateway.client.post("/v1/completions", json={"model": name, "prompt": "x", "max_tokens": 1})
            assert said.json()["model"] == "org/tiny"
        assert gateway.live.traffic.models["org/tiny"].total == 6


def test_a_form_of_very_many_parts_is_refused() -> None:
    """Everybody would wait while it is read."""
    model, more = part("model", b"m"), part("n", b"1")
    assert peek(HEADERS, form(model, *[more] * 999)).model == "m"
    with pytest.raises(InvalidRequest, match="1000 parts"):
        peek(HEADERS, form(model, *[more] * 1000))


async def test_only_the_model_changes(tmp_path: Path) -> None:
    """Wherever its part stands, byte for byte."""
    parts = [part("language", b"en"), FILE, part("model", b"whisper"), part("temperature", b"0.10")]
    kind = {"content-type": "multipart/form-data; boundary=boundary"}
    async with scripted(tmp_path, answer(b"{}"), {"aliases": ["whisper"]}) as (gateway, engine):
        for order in (parts, parts[::-1]):
            body = form(*order)
            sent = await gateway.client.post("/v1/audio/transcriptions", content=body, headers=kind)
            assert sent.status_code == 200, sent.text
            assert engine.received[-1].body == body.replace(b"whisper", b"one")
            assert engine.received[-1].all("content-type") == [kind["content-type"].encode()]


async def test_forms_that_cannot_be_served(tmp_path: Path) -> None:
    """Each with its reason; the engine is not asked."""
    good, kind = form(FILE, part("model", b"one")), "multipart/form-data; boundary=boundary"
    cases = [
        (form(FILE), kind, "missing_parameter"),
        (form(part("model", b"one", '; filename="m"')), kind, "missing_parameter"),
        (b"", kind, "missing_parameter"),
        (b"garbage", kind, "invalid_body"),
        (good.replace(b"--boundary", b"--other"), kind, "invalid_body"),
        (good, "multipart/form-data", "invalid_body"),
        (good, "multipart/form-data; boundary=", "invalid_body"),
        (form(part("model", b"\xff\xfe")), kind, "invalid_parameter"),
        (form(part("model", b"")), kind, "missing_parameter"),
        (form(part("model", b"nobody")), kind, "model_not_found"),
        (form(part("model", b"one"), part("model", b"nobody")), kind, "model_not_found"),
        (good, "application/json", "invalid_json"),
        (good, "application/x-www-form-urlencoded", "invalid_json"),
    ]
    async with scripted(tmp_path, answer(b"{}")) as (gateway, engine):
        for body, sent_as, code in cases:
            headers = {"content-type": sent_as}
            refused = await gateway.client.post("/v1/audio/translations", content=body, headers=headers)
            assert code_of(refused) == (404 if code == "model_not_found" else 400, code), (body[-120:], sent_as)
        assert engine.received == []


async def test_a_form_that_was_cut_short_is_refused(tmp_path: Path) -> None:
    """Without its last boundary the model may be cut too."""
    body = part("model", b"one")
    kind = {"content-type": "multipart/form-data; boundary=boundary"}
    async with scripted(tmp_path, answer(b"{}")) as (gateway, engine):
        for end in range(0, len(body), 3):
            refused = await gateway.client.post("/v1/audio/translations", content=body[:end], headers=kind)
            assert refused.status_code == 400, body[:end]
        assert engine.received == []


NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30).filter(
    lambda name: "boundary" not in name
)


@given(NAMES, NAMES, st.lists(st.binary(max_size=50), max_size=4), st.booleans())
def test_renaming_a_form(model: str, name: str, values: list[bytes], stream: bool) -> None:
    """Any name, between any other fields."""
    values = [value.replace(b"boundary", b"") for value in values]
    others = [part(f"field{at}", value) for at, value in enumerate(values)]
    half = len(others) // 2
    flag = part("stream", b"true" if stream else b"false")
    before, after = form(*others[:half])[:-14], form(flag, *others[half:])
    body = before + part("model", model.encode()) + after
    try:
        found = peek(HEADERS, body)
    except InvalidRequest as refused:
        raise AssertionError(refused.message) from refused
    assert (found.model, found.stream) == (model, stream)
    assert rename(body, found, name) == before + part("model", name.encode()) + after
    assert peek(HEADERS, rename(body, found, name)) == Peek(
        name, stream, slice(found.model_at.start, found.model_at.start + len(name.encode())) if found.model_at else None
    )

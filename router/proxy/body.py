"""The request body: read once, looked into for ``model`` and ``stream``, and passed on as the same bytes."""

from __future__ import annotations

import asyncio
import re
from itertools import islice
from typing import Any

import msgspec
from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.types import Receive, Scope

from router.errors import GatewayError, InvalidRequest, RequestTimeout, TooLarge, Unavailable, UnknownEncoding
from router.proxy.buffered import Share
from router.proxy.encoding import decode, encodings_of
from router.proxy.headers import Headers, header

STALL_SECONDS = 30.0
"""How long the next piece of a body may take."""

DISCARD_FACTOR, DISCARD_SECONDS = 4, 10.0
"""How much of a body that is too large is read all the same, and for how long."""


MOST_PARTS = 1_000
"""Of a form: it is read between other people's tokens."""

HALF_CHARACTER = re.compile(rb"\\u[dD][89a-fA-F][0-9a-fA-F]{2}")
NAMED = re.compile(rb'"model"\s*:\s*("[^"\\]*(?:\\.[^"\\]*)*")')
MOST_NAMED = 16
"""Places where a model's name may be that are tried before the whole body is taken apart."""


class ClientGone(Exception):
    """The client has left: there is nobody to answer."""


class Peek(msgspec.Struct, frozen=True):
    """What the gateway must know of a request. ``model_at``: where its bytes are in a form, None in JSON."""

    model: str
    stream: bool = False
    model_at: slice | None = None


class _Json(msgspec.Struct):
    model: str = ""
    stream: bool | None = False


class _AnyJson(msgspec.Struct):
    """What is one of these may be of any type."""

    model: msgspec.Raw = msgspec.Raw()
    stream: msgspec.Raw = msgspec.Raw()


async def read(scope: Scope, receive: Receive, limit: int, share: Share) -> tuple[Headers, bytes]:
    """The whole body, decoded if it came encoded, and the headers that belong to it.

    Raises ``TooLarge`` past ``limit`` bytes, ``Unavailable`` when ``share`` can take no more, ``RequestTimeout`` when
    no more comes, ``UnknownEncoding`` and ``InvalidRequest`` when it cannot be decoded.
    """
    headers: Headers = scope["headers"]
    encodings: list[str] = []
    refusal: GatewayError | None = too_large(limit) if (_content_length(scope) or 0) > limit else None
    try:
        encodings = encodings_of(headers)
    except UnknownEncoding as unknown:
        refusal = unknown
    chunks: list[bytes] = []
    size = 0
    more = True
    while more and refusal is None:
        chunk, more = await _next(receive)
        size += len(chunk)
        try:
            share.take(len(chunk))
        except Unavailable as full:
            refusal = full
        if size > limit:
            refusal = too_large(limit)
        chunks.append(chunk)
    if refusal is not None:
        chunks.clear()
        # What the client still sends would be read as its next request: unless it has been read, the connection ends.
        refusal.close = more and not await _discard(receive, DISCARD_FACTOR * limit)
        raise refusal
    body = chunks[0] if len(chunks) == 1 else b"".join(chunks)
    if not encodings:
        return headers, body
    chunks.clear()
    plain = await decode(body, encodings, limit, share)
    share.give_back(size)
    return [one for one in headers if one[0] != b"content-encoding"], plain


def too_large(limit: int) -> TooLarge:
    return TooLarge(f"The body is larger than {limit / 1e6:g} MB (router.max_body_mb).", "body_too_large")


async def _next(receive: Receive) -> tuple[bytes, bool]:
    try:
        async with asyncio.timeout(STALL_SECONDS):
            message = await receive()
    except TimeoutError:
        problem = f"No body came for {STALL_SECONDS:g} s."
        raise RequestTimeout(problem, "request_timeout", close=True) from None
    if message["type"] == "http.disconnect":
        raise ClientGone
    return message.get("body", b""), message.get("more_body", False)


async def _discard(receive: Receive, limit: int) -> bool:
    """Read on for a while, for a client that is cut off while it sends never sees the answer. True at the end."""
    size = 0
    try:
        async with asyncio.timeout(DISCARD_SECONDS):
            while size <= limit:
                chunk, more = await _next(receive)
                size += len(chunk)
                if not more:
                    return True
    except TimeoutError:
        pass
    return False


def peek(headers: Headers, body: bytes) -> Peek:
    """Find ``model`` and ``stream``. Raises ``InvalidRequest`` when the body is not what it should be."""
    if not body.startswith(b"{"):  # as a form never does: it begins with its boundary
        content_type = header(headers, b"content-type")
        if content_type.lower().startswith(b"multipart/form-data"):
            return _peek_form(content_type, body)
    return _peek_json(body)


def rename(body: bytes, peeked: Peek, model: str) -> bytes:
    """The same body with another model name; all else stays as it was written. Raises ``InvalidRequest``."""
    if peeked.model_at is not None:
        return body[: peeked.model_at.start] + model.encode() + body[peeked.model_at.stop :]
    try:
        return _renamed(body, msgspec.json.encode(model))
    except (msgspec.DecodeError, UnicodeDecodeError) as broken:
        raise InvalidRequest(f"The body is not valid JSON: {broken}", "invalid_json") from None
    except RecursionError:
        raise InvalidRequest("The body is nested too deeply.", "invalid_json") from None


def _renamed(body: bytes, name: bytes) -> bytes:
    for found in islice(NAMED.finditer(body), MOST_NAMED):  # nearly always the first is it
        renamed = b"".join((body[: found.start(1)], name, body[found.end(1) :]))
        if bytes(_decode_any(renamed).model) == name:
            return renamed
    # Its key is written in escapes, or it is one of very many.
    fields = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    fields["model"] = msgspec.Raw(name)
    return msgspec.json.encode(fields)


_decoder = msgspec.json.Decoder(_Json)
_any_decoder = msgspec.json.Decoder(_AnyJson)
_name_decoder = msgspec.json.Decoder(str)


def _peek_json(body: bytes) -> Peek:
    try:
        found = _decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _peek_odd_json(body)
    return Peek(found.model, found.stream is True) if found.model else _peek_odd_json(body)


def _peek_odd_json(body: bytes) -> Peek:
    """The same for what is not as nearly all are, and to say what is wrong with it."""
    try:
        found = _decode_any(body)
    except msgspec.ValidationError:
        raise InvalidRequest("The body must be a JSON object.", "invalid_body") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as broken:
        raise InvalidRequest(f"The body is not valid JSON: {broken}", "invalid_json") from None
    except RecursionError:
        raise InvalidRequest("The body is nested too deeply.", "invalid_json") from None
    if not bytes(found.model):
        raise InvalidRequest("The parameter 'model' is missing.", "missing_parameter", param="model")
    try:
        model = _name_decoder.decode(found.model)
    except (msgspec.DecodeError, UnicodeDecodeError):
        model = ""
    if not model:
        raise InvalidRequest("The parameter 'model' must be a model's name.", "invalid_parameter", param="model")
    return Peek(model, bytes(found.stream) == b"true")


def _decode_any(body: bytes) -> _AnyJson:
    """Halves of characters are legal in JSON, and JavaScript writes them where a text was cut; our decoder has none."""
    try:
        return _any_decoder.decode(body)
    except msgspec.ValidationError:
        raise
    except msgspec.DecodeError:
        return _any_decoder.decode(HALF_CHARACTER.sub(rb"\\ufffd", body))


def _peek_form(content_type: bytes, body: bytes) -> Peek:
    _, options = parse_options_header(content_type)
    boundary = options.get(b"boundary")
    if not boundary:
        raise InvalidRequest("The form has no boundary in its content-type.", "invalid_body")
    form = _Form(body)
    try:
        parser = MultipartParser(boundary, form.callbacks())
        parser.write(body)
        parser.finalize()
    except MultipartParseError as broken:
        raise InvalidRequest(f"The form cannot be read: {broken}", "invalid_body") from None
    if form.model is None:
        raise InvalidRequest("The form has no field 'model'.", "missing_parameter", param="model")
    try:
        name = body[form.model].decode()
    except UnicodeDecodeError:
        raise InvalidRequest("The field 'model' is not UTF-8 text.", "invalid_parameter", param="model") from None
    return Peek(name, body[form.stream].strip().lower() == b"true" if form.stream else False, form.model)


class _Form:
    """Where the fields ``model`` and ``stream`` are in a form."""

    def __init__(self, body: bytes) -> None:
        self.model: slice | None = None
        self.stream: slice | None = None
        self._field = b""
        self._value = b""
        self._name: bytes | None = None
        self._span: slice | None = None
        self._parts = 0

    def callbacks(self) -> Any:
        return {
            "on_part_begin": self._begin,
            "on_header_begin": self._header_begin,
            "on_header_field": self._header_field,
            "on_header_value": self._header_value,
            "on_header_end": self._header_end,
            "on_part_data": self._data,
            "on_part_end": self._end,
        }

    def _begin(self) -> None:
        self._parts += 1
        if self._parts > MOST_PARTS:
            raise InvalidRequest(f"The form has more than {MOST_PARTS} parts.", "invalid_body")
        self._name = None
        self._span = None

    def _header_begin(self) -> None:
        self._field = self._value = b""

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._field += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_end(self) -> None:
        if self._field.lower() == b"content-disposition":
            _, options = parse_options_header(self._value)
            if b"filename" not in options:
                self._name = options.get(b"name")

    def _data(self, data: bytes, start: int, end: int) -> None:
        # The whole body was handed over at once, so these are places in it; a value may come in parts.
        self._span = slice(self._span.start if self._span else start, end)

    def _end(self) -> None:
        if self._name == b"model":
            self.model = self._span
        elif self._name == b"stream":
            self.stream = self._span


def _content_length(scope: Scope) -> int | None:
    text = header(scope["headers"], b"content-length")
    return int(text) if text.isdigit() else None

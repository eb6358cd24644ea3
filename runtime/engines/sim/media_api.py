"""Routes of sound and pictures: made of byte counts and single pixels."""

from __future__ import annotations

import base64
import struct
import time
import zlib
from typing import Any

from starlette.datastructures import UploadFile
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from runtime.engines.sim.answer import answer
from runtime.engines.sim.body import integer, read_json
from runtime.engines.sim.dialect import Dialect
from runtime.engines.sim.engine import Engine
from runtime.engines.sim.errors import invalid
from runtime.engines.sim.form import JsonResponse
from runtime.engines.sim.generation import Generation
from runtime.engines.sim.orders import silent_order
from runtime.engines.sim.pooling_api import Unspoken
from runtime.engines.sim.text import digest, say

_SAMPLE_RATE = 8000


def picture(number: int) -> bytes:
    """A PNG of one pixel, coloured by a number."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0)
    pixel = b"\x00" + (number & 0xFFFFFF).to_bytes(3, "big")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(pixel)) + chunk(b"IEND", b"")


def silence(seconds: float) -> bytes:
    """A WAV file, mono, 8 bits."""
    samples = b"\x80" * int(_SAMPLE_RATE * seconds)
    shape = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, _SAMPLE_RATE, _SAMPLE_RATE, 1, 8)
    data = struct.pack("<4sI", b"data", len(samples)) + samples
    return struct.pack("<4sI4s", b"RIFF", 4 + len(shape) + len(data), b"WAVE") + shape + data


class MediaApi:
    def __init__(self, engine: Engine, dialect: Dialect) -> None:
        self._engine = engine
        self._names = dialect.names

    def routes(self) -> list[Route]:
        table = {
            "/v1/audio/transcriptions": self.transcribe,
            "/v1/audio/translations": self.transcribe,
            "/v1/audio/speech": self.speech,
            "/v1/images/generations": self.images,
        }
        return [Route(path, endpoint, methods=["POST"]) for path, endpoint in table.items()]

    async def transcribe(self, request: Request) -> Response:
        async with request.form() as form:
            file = form.get("file")
            if not isinstance(file, UploadFile):
                raise invalid("missing", "body.file", "Field required")
            size = len(await file.read())
            body: dict[str, Any] = {key: value for key, value in form.items() if isinstance(value, str)}
        named = self._names.resolve(body)
        order = silent_order(self._engine.options, named, f"{size} bytes of sound", "")
        plain = body.get("response_format") == "text"

        def make(generation: Generation) -> Response:
            options = self._engine.options
            words = say(options.seed, order.voice, order.prompt, 8, sane=self._engine.memory.intact)
            text = f"{size} bytes of sound:{''.join(words)}"
            if plain:
                return Response(text, media_type="text/plain")
            seconds = max(1, size // (2 * _SAMPLE_RATE))
            return JsonResponse({"text": text, "usage": {"type": "duration", "seconds": seconds}})

        return await answer(self._engine, request, order, Unspoken(make))

    async def speech(self, request: Request) -> Response:
        body = await read_json(request, "input")
        text = str(body["input"])
        order = silent_order(self._engine.options, self._names.resolve(body), text, "")
        sound = silence(max(0.05, 0.05 * len(text.split())))
        return await answer(
            self._engine, request, order, Unspoken(lambda generation: Response(sound, media_type="audio/wav"))
        )

    async def images(self, request: Request) -> Response:
        body = await read_json(request, "prompt")
        prompt = str(body["prompt"])
        order = silent_order(self._engine.options, self._names.resolve(body), prompt, "")
        count = max(1, integer(body, "n") or 1)
        seed = self._engine.options.seed

        def make(generation: Generation) -> Response:
            images = [base64.b64encode(picture(digest(seed, prompt, at))).decode() for at in range(count)]
            return JsonResponse({"created": int(time.time()), "data": [{"b64_json": image} for image in images]})

        return await answer(self._engine, request, order, Unspoken(make))

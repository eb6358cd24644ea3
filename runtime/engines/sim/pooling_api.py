"""Routes of models that say nothing: embeddings, scores, ranks, classes."""

from __future__ import annotations

import base64
import struct
import time
from collections.abc import Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from runtime.engines.sim.answer import answer
from runtime.engines.sim.body import integer, read_json
from runtime.engines.sim.dialect import Dialect
from runtime.engines.sim.engine import Engine
from runtime.engines.sim.errors import invalid
from runtime.engines.sim.form import JsonResponse, failure_event
from runtime.engines.sim.generation import Generation
from runtime.engines.sim.orders import silent_order
from runtime.engines.sim.text import detokenize, digest, relevance, vector

DIMENSIONS = 32


class Unspoken:
    """A form for work whose answer is made once the engine has done its part."""

    def __init__(self, make: Callable[[Generation], Response]) -> None:
        self._make = make

    def opening(self, generation: Generation) -> bytes:
        return b""

    def token(self, text: str) -> bytes:
        return b""

    def closing(self, generation: Generation, last: str) -> bytes:
        return b""

    def failure(self) -> bytes:
        return failure_event()

    def whole(self, generation: Generation) -> Response:
        return self._make(generation)


def texts_of(value: Any, field: str) -> list[str]:
    """One text or many, as strings, documents or token ids."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        return [str(value.get("text", ""))]
    if not isinstance(value, list) or not value:
        raise invalid("list_type", f"body.{field}", "Input should be a valid list")
    if all(isinstance(one, int) for one in value):
        return [detokenize(value)]
    return [text for one in value for text in texts_of(one, field)]


class PoolingApi:
    def __init__(self, engine: Engine, dialect: Dialect) -> None:
        self._engine = engine
        self._names = dialect.names

    def routes(self) -> list[Route]:
        table = {
            "/v1/embeddings": self.embeddings,
            "/pooling": self.pooling,
            "/v1/rerank": self.rerank,
            "/rerank": self.rerank,
            "/v2/rerank": self.rerank,
            "/v1/score": self.score,
            "/score": self.score,
            "/classify": self.classify,
        }
        return [Route(path, endpoint, methods=["POST"]) for path, endpoint in table.items()]

    async def _run(
        self,
        request: Request,
        body: dict[str, Any],
        texts: list[str],
        prefix: str,
        fields: Callable[[], dict[str, Any]],
    ) -> Response:
        named = self._names.resolve(body)
        request_id = self._names.request_id(request, body, prefix)
        order = silent_order(self._engine.options, named, "\n".join(texts), request_id)

        def make(generation: Generation) -> Response:
            tokens = generation.order.prompt_tokens
            head = {"id": request_id, "object": "list", "created": int(time.time()), "model": named.shown}
            usage = {
                "prompt_tokens": tokens,
                "total_tokens": tokens,
                "completion_tokens": 0,
                "prompt_tokens_details": None,
            }
            return JsonResponse(head | fields() | {"usage": usage})

        return await answer(self._engine, request, order, Unspoken(make))

    def _vector(self, text: str, dimensions: int) -> list[float]:
        seed = self._engine.options.seed if self._engine.memory.intact else -1
        return vector(seed, text, dimensions)

    async def embeddings(self, request: Request) -> Response:
        body = await read_json(request, "input")
        texts = texts_of(body["input"], "input")
        dimensions = integer(body, "dimensions") or DIMENSIONS
        as_base64 = body.get("encoding_format") == "base64"

        def encode(values: list[float]) -> list[float] | str:
            return base64.b64encode(struct.pack(f"<{len(values)}f", *values)).decode() if as_base64 else values

        def fields() -> dict[str, Any]:
            return {
                "data": [
                    {"index": at, "object": "embedding", "embedding": encode(self._vector(text, dimensions))}
                    for at, text in enumerate(texts)
                ]
            }

        return await self._run(request, body, texts, "embd", fields)

    async def pooling(self, request: Request) -> Response:
        body = await read_json(request, "input")
        texts = texts_of(body["input"], "input")

        def fields() -> dict[str, Any]:
            return {
                "data": [
                    {"index": at, "object": "pooling", "data": self._vector(text, DIMENSIONS)}
                    for at, text in enumerate(texts)
                ]
            }

        return await self._run(request, body, texts, "pool", fields)

    async def rerank(self, request: Request) -> Response:
        body = await read_json(request, "query", "documents")
        query = texts_of(body["query"], "query")[0]
        documents = texts_of(body["documents"], "documents")
        top = integer(body, "top_n") or len(documents)

        def fields() -> dict[str, Any]:
            scored = [
                {
                    "index": at,
                    "document": {"text": text, "multi_modal": None},
                    "relevance_score": relevance(query, text),
                }
                for at, text in enumerate(documents)
            ]
            return {"results": sorted(scored, key=lambda one: -float(str(one["relevance_score"])))[:top]}

        return await self._run(request, body, [query, *documents], "rerank", fields)

    async def score(self, request: Request) -> Response:
        body = await read_json(request)
        first = texts_of(body.get("text_1", body.get("queries")), "text_1")
        second = texts_of(body.get("text_2", body.get("documents")), "text_2")
        pairs = list(zip(first * len(second) if len(first) == 1 else first, second, strict=False))

        def fields() -> dict[str, Any]:
            return {
                "data": [{"index": at, "object": "score", "score": relevance(*pair)} for at, pair in enumerate(pairs)]
            }

        return await self._run(request, body, first + second, "score", fields)

    async def classify(self, request: Request) -> Response:
        body = await read_json(request, "input")
        texts = texts_of(body["input"], "input")

        def one(at: int, text: str) -> dict[str, Any]:
            share = digest(self._engine.options.seed, text) % 1000 / 1000
            label = "LABEL_0" if share >= 0.5 else "LABEL_1"
            return {"index": at, "label": label, "probs": [share, round(1 - share, 3)], "num_classes": 2}

        def fields() -> dict[str, Any]:
            return {"data": [one(at, text) for at, text in enumerate(texts)]}

        return await self._run(request, body, texts, "classify", fields)

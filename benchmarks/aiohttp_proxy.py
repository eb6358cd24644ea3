"""What is usually written: aiohttp on both sides and nothing else. ``python -m benchmarks.aiohttp_proxy PORT ENGINE…``

A baseline for ``overhead --peers``. aiohttp is none of the project's dependencies, so it is looked for when this runs.
"""

from __future__ import annotations

import importlib
import itertools
import sys
from collections.abc import AsyncIterator
from typing import Any

import uvloop

HOP_BY_HOP = frozenset({"connection", "content-length", "host", "keep-alive", "transfer-encoding"})


def application(engines: list[str]) -> Any:
    aiohttp, web = importlib.import_module("aiohttp"), importlib.import_module("aiohttp.web")
    turn = itertools.cycle(f"http://127.0.0.1:{engine}" for engine in engines)

    async def session(app: Any) -> AsyncIterator[None]:
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(connector=connector, auto_decompress=False) as client:
            app["client"] = client
            yield

    async def passed_on(asked: Any) -> Any:
        headers = {name: value for name, value in asked.headers.items() if name.lower() not in HOP_BY_HOP}
        url, body = next(turn) + asked.path_qs, await asked.read()
        async with asked.app["client"].request(asked.method, url, data=body, headers=headers) as answer:
            kept = {name: value for name, value in answer.headers.items() if name.lower() not in HOP_BY_HOP}
            if answer.content_length is not None:
                return web.Response(status=answer.status, headers=kept, body=await answer.read())
            response = web.StreamResponse(status=answer.status, headers=kept)
            await response.prepare(asked)
            async for chunk in answer.content.iter_any():
                await response.write(chunk)
            await response.write_eof()
            return response

    app = web.Application()
    app.cleanup_ctx.append(session)
    app.router.add_route("*", "/{path:.*}", passed_on)
    return app


def main() -> None:
    port, *engines = sys.argv[1:]
    uvloop.install()
    importlib.import_module("aiohttp.web").run_app(
        application(engines), host="127.0.0.1", port=int(port), access_log=None, print=None
    )


if __name__ == "__main__":
    main()

"""What uvicorn answers to HTTP/1.0, which knows no chunks: without a length, the connection's end is the answer's."""

from __future__ import annotations

from typing import Any

from uvicorn.protocols.http.httptools_impl import RequestResponseCycle


class Unframed(RequestResponseCycle):
    _sized = False

    async def send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self._sized = any(name.lower() == b"content-length" for name, _ in message.get("headers", ()))
            self.chunked_encoding = None if self._sized else False
        elif message["type"] == "http.response.body" and not self._sized:
            self.expected_content_length = len(message.get("body", b""))
        await super().send(message)

"""The paths that engines serve. Any other path of an engine, its admin ones above all, is not reachable."""

from __future__ import annotations

from collections.abc import Mapping

from starlette.types import ASGIApp

from router.routes.endpoint import Endpoint, Query

ENGINE_PATHS: Mapping[str, str] = {
    "/v1/chat/completions": "Chat completion",
    "/v1/completions": "Text completion",
    "/v1/embeddings": "Embeddings",
    "/v1/messages": "A message (Anthropic Messages API)",
    "/v1/messages/count_tokens": "Count a message's tokens",
    "/v1/rerank": "Rerank documents",
    "/rerank": "Rerank documents",
    "/v1/score": "Score pairs of texts",
    "/score": "Score pairs of texts",
    "/classify": "Classify texts",
    "/pooling": "Pooled hidden states",
    "/tokenize": "Tokenize a text",
    "/detokenize": "Text of tokens",
    "/v1/audio/transcriptions": "Transcribe audio (form)",
    "/v1/audio/translations": "Translate audio (form)",
    "/v1/audio/speech": "Speech from text",
    "/v1/images/generations": "Images from text",
}


def engine_endpoints(pipeline: ASGIApp) -> list[Endpoint]:
    return [
        Endpoint("POST", path, pipeline, f"{summary}, by the body's `model`", "engines", takes_body=True)
        for path, summary in ENGINE_PATHS.items()
    ]


def response_endpoints(pipeline: ASGIApp) -> list[Endpoint]:
    """Those of OpenAI's Responses API. What engines lack of them they say themselves."""
    path = "/v1/responses/{response_id}"
    create = "A response (OpenAI Responses API), by the body's `model`"
    stream = (Query("stream", "boolean", False, "The events of one that was made in the background"),)
    return [
        Endpoint("POST", "/v1/responses", pipeline, create, "engines", takes_body=True),
        Endpoint("GET", path, pipeline, "The response, from the engine that made it", "engines", query=stream),
        Endpoint("DELETE", path, pipeline, "Delete the response", "engines"),
        Endpoint("POST", f"{path}/cancel", pipeline, "Cancel the response, made in the background", "engines"),
        Endpoint("GET", f"{path}/input_items", pipeline, "What the response was made from", "engines"),
    ]

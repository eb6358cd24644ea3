"""The seam between the OpenAI routes and what differs from one engine to the other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol
from uuid import uuid4

from starlette.requests import Request

from runtime.engines.sim.adapters import Adapters
from runtime.engines.sim.errors import ApiError
from runtime.engines.sim.form import Form, Reply
from runtime.engines.sim.options import SimOptions
from runtime.engines.sim.orders import Named


class Names(Protocol):
    """Finds the weights a request names."""

    def resolve(self, body: dict[str, Any]) -> Named: ...

    def request_id(self, request: Request, body: dict[str, Any], prefix: str) -> str: ...


@dataclass(frozen=True)
class Dialect:
    names: Names
    completion: Callable[[Reply], Form]
    chat: Callable[[Reply], Form]


class VllmNames:
    def __init__(self, options: SimOptions, adapters: Adapters) -> None:
        self._options = options
        self._adapters = adapters

    def resolve(self, body: dict[str, Any]) -> Named:
        """No name is the base model; an unknown one is 404."""
        model = body.get("model")
        if not model:
            return Named(self._options.name, self._options.model)
        if model in self._options.served_names:
            return Named(model, self._options.model)
        if model in self._adapters:
            return Named(model, model, adapter=model)
        aliases = ", ".join(self._options.served_names)
        message = f"The model `{model}` does not exist. Valid aliases: {aliases}."
        raise ApiError(404, message, "NotFoundError", "model")

    def request_id(self, request: Request, body: dict[str, Any], prefix: str) -> str:
        return f"{prefix}-{request.headers.get('x-request-id') or uuid4().hex[:16]}"


class SglangNames:
    def __init__(self, options: SimOptions, adapters: Adapters) -> None:
        self._options = options
        self._adapters = adapters

    def resolve(self, body: dict[str, Any]) -> Named:
        """Any name will do; an adapter only as `base:adapter` or in lora_path."""
        model = str(body.get("model") or self._options.name)
        adapter = body.get("lora_path")
        if not adapter and self._options.enable_lora and ":" in model:
            adapter = model.split(":", 1)[1]
        if not adapter:
            return Named(model, self._options.model)
        if adapter not in self._adapters:
            loaded = [one.name for one in self._adapters.all()]
            message = f"Got LoRA adapter that has never been loaded: {adapter}. All loaded adapters: {loaded}."
            raise ApiError(400, message)
        return Named(model, str(adapter), adapter=str(adapter))

    def request_id(self, request: Request, body: dict[str, Any], prefix: str) -> str:
        """Bare hex; only the body's rid sets it."""
        return str(body.get("rid") or uuid4().hex)

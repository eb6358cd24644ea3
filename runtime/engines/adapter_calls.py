"""Adapters over HTTP: what vLLM and SGLang have in common, and how each says no."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from runtime.engines.base import AdapterSeen, AlreadyLoaded, EngineRefused, NotLoaded
from runtime.engines.control import Control

ALREADY_LOADED = ("already been loaded", "already loaded")
NOT_LOADED = ("cannot be found", "does not exist")


async def seen(control: Control) -> Mapping[str, AdapterSeen]:
    """The names of ``GET /v1/models`` that have a parent: both engines list their adapters so."""
    cards = await _cards(control)
    return {str(card["id"]): AdapterSeen(card.get("root"), card["parent"]) for card in cards if card.get("parent")}


async def bases(control: Control) -> tuple[str, ...]:
    """Those that have none, by id and by root."""
    names = [card.get(key) for card in await _cards(control) if not card.get("parent") for key in ("id", "root")]
    return tuple(dict.fromkeys(name for name in names if isinstance(name, str) and name))


async def _cards(control: Control) -> list[Mapping[str, Any]]:
    cards = control.field(await control.call("GET", "/v1/models"), "data")
    return [card for card in cards if isinstance(card, dict)] if isinstance(cards, list) else []


async def load(control: Control, path: str, body: Mapping[str, Any]) -> str:
    try:
        return await _tell(control, path, body)
    except EngineRefused as refused:
        raise _named(refused, AlreadyLoaded, ALREADY_LOADED) from None


async def unload(control: Control, path: str, name: str) -> str:
    try:
        return await _tell(control, path, {"lora_name": name})
    except EngineRefused as refused:
        raise _named(refused, NotLoaded, NOT_LOADED) from None


async def _tell(control: Control, path: str, body: Mapping[str, Any]) -> str:
    answer = await control.call("POST", path, json=body)
    if _says_no(answer.text):
        raise control.refusal(answer, status=400)
    return answer.text


def _says_no(text: str) -> bool:
    """Older SGLangs do so with a 200. vLLM's answer is no JSON."""
    try:
        body = json.loads(text)
    except ValueError:
        return False
    return isinstance(body, dict) and body.get("success") is False


def _named(refused: EngineRefused, kind: type[EngineRefused], words: tuple[str, ...]) -> EngineRefused:
    """Neither engine has a code for it, only words."""
    if refused.status in (400, 404) and any(word in refused.reason.lower() for word in words):
        return kind(refused.engine, refused.operation, refused.status, refused.text)
    return refused

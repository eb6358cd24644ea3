"""The YAML file as users write it: each key, its type, its default. Nothing is looked up or filled in here."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StrictBool, StrictInt, StringConstraints
from pydantic.json_schema import WithJsonSchema

from runtime.engines.kinds import KINDS, SYNONYMS

ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def _words(value: Any) -> Any:
    """Engine arguments: text is split as a shell would, a list item by item; a list within is taken word for word."""
    if value is None:
        return ()
    if isinstance(value, str):
        return _split(value)
    if not isinstance(value, list):
        raise ValueError("must be a list of arguments or one line of text")
    words: list[str] = []
    for item in value:
        if isinstance(item, list):
            words += [_scalar(word) for word in item]
        else:
            words += _split(_scalar(item))
    return tuple(words)


def _split(text: str) -> tuple[str, ...]:
    try:
        return tuple(shlex.split(text))
    except ValueError as unbalanced:
        raise ValueError(f"cannot be split into arguments: {unbalanced}; close the quote") from None


def _scalar(value: Any) -> str:
    if isinstance(value, bool) or value is None or not isinstance(value, str | int | float):
        raise ValueError(f"an argument must be text or a number, not {value!r}; put it in quotes")
    return str(value)


def _variables(value: Any) -> Any:
    """Environment variables: a list of ``KEY=VALUE`` (kvcached's form) or a mapping."""
    if value is None:
        return {}
    if isinstance(value, list):
        return dict(_assignment(item) for item in value)
    if not isinstance(value, dict):
        raise ValueError("must be a list of KEY=VALUE or a mapping")
    for name, content in value.items():
        if isinstance(content, bool) or not isinstance(content, str | int | float):
            raise ValueError(f'{name} must be text or a number, not {content!r}; write it in quotes, as "{content}"')
        _check_name(name)
    return {str(name): str(content) for name, content in value.items()}


def _assignment(item: Any) -> tuple[str, str]:
    if not isinstance(item, str) or "=" not in item:
        raise ValueError(f"{item!r} is not of the form KEY=VALUE")
    name, _, content = item.partition("=")
    _check_name(name)
    return name, content


def _check_name(name: Any) -> None:
    if not isinstance(name, str) or not ENV_NAME.fullmatch(name):
        raise ValueError(f"{name!r} is no name for an environment variable; use letters, digits and _")


def _global_variables(value: Any) -> Any:
    """kvcached's own section: any mapping, its keys in upper case, its values as Python writes them."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ValueError("must be a mapping of settings")
    for name in value:
        _check_name(name)
    return {str(name).upper(): str(content) for name, content in value.items()}


def _engine(value: Any) -> Any:
    if isinstance(value, str):
        kind = SYNONYMS.get(value.lower(), value.lower())
        if kind in KINDS:
            return kind
    raise ValueError(f"unknown engine {value!r}; the known ones are {', '.join([*KINDS, *SYNONYMS])}")


def _none_is_empty(value: Any) -> Any:
    return {} if value is None else value


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else () if value is None else value


_VARIABLES_SCHEMA = {
    "anyOf": [
        {"type": "array", "items": {"type": "string", "pattern": "^[A-Za-z_][A-Za-z0-9_]*="}},
        {"type": "object", "additionalProperties": {"type": ["string", "number"]}},
        {"type": "null"},
    ]
}
_WORDS_SCHEMA = {"anyOf": [{"type": "array"}, {"type": "string"}, {"type": "null"}]}

Text = Annotated[str, StringConstraints(min_length=1, pattern=r"^[^\x00-\x1f\x7f]+$")]
Words = Annotated[tuple[str, ...], BeforeValidator(_words), WithJsonSchema(_WORDS_SCHEMA)]
Variables = Annotated[dict[str, str], BeforeValidator(_variables), WithJsonSchema(_VARIABLES_SCHEMA)]
GlobalVariables = Annotated[
    dict[str, str], BeforeValidator(_global_variables), WithJsonSchema({"type": ["object", "null"]})
]
EngineKind = Annotated[str, BeforeValidator(_engine), WithJsonSchema({"type": "string", "enum": [*KINDS, *SYNONYMS]})]
Port = Annotated[StrictInt, Field(ge=1, le=65535)]
Seconds = Annotated[float, Field(strict=True, ge=0, allow_inf_nan=False)]
Names = Annotated[tuple[Text, ...], BeforeValidator(_tuple)]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class RouterSection(Section):
    """``router:``, the one OpenAI address."""

    enable_router: StrictBool = False
    router_host: Text = "127.0.0.1"
    router_port: Port = 8080
    api_key_env: Text | None = None
    max_body_mb: Annotated[float, Field(strict=True, gt=0)] = 64


class SleepSection(Section):
    """``sleep_manager:``, when idle models sleep and how they wake. Times in seconds.

    An instance may have one too: what it sets there overrides the global section.
    """

    idle_threshold_seconds: Seconds = 300
    check_interval_seconds: Annotated[float, Field(strict=True, gt=0)] = 60
    auto_sleep_enabled: StrictBool = False
    wakeup_on_request: StrictBool = True
    min_sleep_duration: Seconds = 60
    wake_timeout_seconds: Annotated[float, Field(strict=True, gt=0)] = 300
    drain_timeout_seconds: Seconds = 30
    level: Annotated[StrictInt, Field(ge=1, le=2)] = 1


class LaunchSection(Section):
    """``launch:``, how engines are started and stopped. Times in seconds."""

    session_prefix: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]+$")] = "kvcached-"
    ready_timeout_seconds: Annotated[float, Field(strict=True, gt=0)] = 1800
    stop_timeout_seconds: Seconds = 30
    log_dir: Text | None = None


class StateSection(Section):
    """``state:``, where what must survive a restart is kept."""

    url: Text | None = None


class InstanceSection(Section):
    """One entry of ``instances:``, one engine process."""

    model: Text
    engine: EngineKind | None = None
    name: Text | None = None
    host: Text | None = None
    port: Port | None = None
    url: Annotated[str, StringConstraints(pattern=r"^https?://[^/\s?#]+/?$")] | None = None
    command: Words = ()
    engine_args: Words = ()
    args: Words = ()
    using_venv: StrictBool = False
    venv_path: Text | None = None
    kvcached_env: Variables = {}
    engine_env: Variables = {}
    env: Variables = {}
    gpus: Annotated[tuple[Annotated[StrictInt, Field(ge=0)], ...], BeforeValidator(_tuple)] = ()
    aliases: Names = ()
    labels: Annotated[Mapping[str, str], BeforeValidator(_none_is_empty)] = {}
    api_key_env: Text | None = None
    sleep_flags: StrictBool = True
    sleep_manager: Annotated[SleepSection, BeforeValidator(_none_is_empty)] = SleepSection()


class ConfigFile(Section):
    """The whole file."""

    kvcached: GlobalVariables = {}
    router: Annotated[RouterSection, BeforeValidator(_none_is_empty)] = RouterSection()
    sleep_manager: Annotated[SleepSection, BeforeValidator(_none_is_empty)] = SleepSection()
    launch: Annotated[LaunchSection, BeforeValidator(_none_is_empty)] = LaunchSection()
    state: Annotated[StateSection, BeforeValidator(_none_is_empty)] = StateSection()
    launch_delay_seconds: Seconds = 0
    instances: Annotated[tuple[InstanceSection, ...], BeforeValidator(_tuple), Field(min_length=1)]

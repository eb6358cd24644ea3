"""From the file as written to the complete ``Config``. Pure: the folder and the environment are handed in."""

from __future__ import annotations

import re
import sys
import zlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

from pydantic import BaseModel

from controller.adapters.selector import selects, wants_adapters
from controller.adapters.spec import AdapterSpec
from controller.config import memory
from controller.config.model import Config, Instance, Sidecar, session_name
from controller.config.schema import ConfigFile, InstanceSection, SleepSection
from controller.config.values import HOST
from runtime.engines.kinds import KINDS
from runtime.engines.spec import ArgumentFacts, EngineSpec

S = TypeVar("S", bound=BaseModel)

CREDENTIALS = "TORPOR_CREDENTIALS_"
"""Variables called so hold credentials: ``TORPOR_CREDENTIALS_S3_KEYS`` is the set ``s3-keys``."""

FIRST_PORT, PORTS = 20000, 10000
"""Assigned ports stay below the range the kernel hands out (from 32768)."""

ANY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1", "*": "127.0.0.1"}
DEFAULT_HOST = "127.0.0.1"


def resolve(file: Path, digest: str, written: ConfigFile, environment: Mapping[str, str]) -> Config:
    ports = assign_ports(written)
    sidecars = _sidecars(written, ports)
    instances = tuple(
        _instance(section, port, sidecar, written, file.parent, environment)
        for section, port, sidecar in zip(written.instances, ports, sidecars, strict=True)
    )
    return Config(
        file=file,
        digest=digest,
        router=written.router,
        sleep=written.sleep_manager,
        launch=written.launch,
        launch_delay_seconds=written.launch_delay_seconds,
        state_url=_state_url(file, written.state.url),
        log_dir=_path(file.parent, written.launch.log_dir or f"{file.stem}.logs"),
        instances=instances,
        model_settings=dict(written.models),
        capacity=memory.capacity(written),
        residency=written.residency,
        rivals=_rivals(written),
        api_key=_key(written.router.api_key_env, environment),
        adapters={one.name: AdapterSpec.model_validate(one.model_dump(exclude={"name"})) for one in written.adapters},
        adapters_folder=_path(file.parent, written.adapter_store.folder or f"{file.stem}.adapters"),
        adapter_refresh_seconds=written.adapter_store.refresh_seconds,
        credentials_file=_path(file.parent, written.adapter_store.credentials_file or f"{file.stem}.credentials.json"),
        credentials={name: text for name, text in environment.items() if name.startswith(CREDENTIALS)},
    )


def kind_of(section: InstanceSection) -> str:
    """A server that is brought along speaks OpenAI's API unless something else is said."""
    return section.engine or "openai"


def name_of(section: InstanceSection) -> str:
    return section.name or section.model.rstrip("/").rpartition("/")[2] or section.model


def arguments_of(section: InstanceSection) -> tuple[str, ...]:
    return (*section.engine_args, *section.args)


def facts_of(section: InstanceSection) -> ArgumentFacts:
    """What the arguments say. Of a command, the host and the port are ours to fill in."""
    known = {"{model}": section.model, "{name}": name_of(section)}
    command = tuple(_fill(word, known) for word in section.command)
    facts = KINDS[kind_of(section)].facts(section.model, (*arguments_of(section), *command))
    return replace(
        facts,
        host=None
        if section.command and not HOST.fullmatch(facts.host or "")
        else (facts.host or "").strip("[]") or None,
        port=None if facts.port == "{port}" else facts.port,
    )


def names_of(section: InstanceSection) -> tuple[str, ...]:
    """All names but adapters: the model, what the engine calls it, aliases."""
    return tuple(dict.fromkeys((section.model, *facts_of(section).served_names, *section.aliases)))


def declared_port(section: InstanceSection) -> int | None:
    """The port that the file gives, as a key, in a url or among the arguments."""
    if section.port is not None:
        return section.port
    if section.url is not None:
        parts = urlsplit(section.url)
        return parts.port or (443 if parts.scheme == "https" else 80)
    text = facts_of(section).port
    return port_number(text) if text is not None else None


def port_number(text: str) -> int | None:
    """The port that ``text`` names; None when it names none."""
    if not re.fullmatch(r"[0-9]{1,5}", text):
        return None
    return int(text) if 0 < int(text) < 65536 else None


def assign_ports(written: ConfigFile) -> tuple[int, ...]:
    """Each instance's port. One that says none gets a port made from its name, the next free one on a clash."""
    declared = [declared_port(section) for section in written.instances]
    taken = {port for port in declared if port is not None} | _taken_beside(written)
    return tuple(
        _assigned(name_of(section), taken) if port is None else port
        for section, port in zip(written.instances, declared, strict=True)
    )


def runtime_name(section: InstanceSection) -> str:
    """What the launcher calls the sidecar."""
    return f"{name_of(section)}-runtime"


def _sidecars(written: ConfigFile, ports: tuple[int, ...]) -> tuple[Sidecar | None, ...]:
    taken = {*ports} | _taken_beside(written)
    found: list[Sidecar | None] = []
    for section in written.instances:
        if not section.sidecar:
            found.append(None)
            continue
        name = runtime_name(section)
        port = section.sidecar_port or _assigned(name, taken)
        found.append(Sidecar(name, session_name(written.launch.session_prefix, name), port))
    return tuple(found)


def _taken_beside(written: ConfigFile) -> set[int]:
    """Ports of the file that are no engine's."""
    given = {section.sidecar_port for section in written.instances if section.sidecar_port is not None}
    return given | {written.router.router_port}


def _assigned(name: str, taken: set[int]) -> int:
    """A port made from ``name``, the next free one on a clash; it is taken then."""
    port = FIRST_PORT + zlib.crc32(name.encode()) % PORTS
    while port in taken:
        port = FIRST_PORT + (port - FIRST_PORT + 1) % PORTS
    taken.add(port)
    return port


def host_of(section: InstanceSection) -> str:
    """The address the engine listens on."""
    if section.url is not None:
        return urlsplit(section.url).hostname or DEFAULT_HOST
    return section.host or facts_of(section).host or DEFAULT_HOST


def environment_of(section: InstanceSection, written: ConfigFile) -> dict[str, str]:
    """The user's variables in their order of precedence, later ones winning."""
    return {**written.kvcached, **section.engine_env, **section.env, **section.kvcached_env}


def overridden(general: S, own: S) -> S:
    """``general`` with what ``own`` says itself."""
    return general.model_copy(update={name: getattr(own, name) for name in own.model_fields_set})


def sleep_of(section: InstanceSection, written: ConfigFile) -> SleepSection:
    return overridden(written.sleep_manager, section.sleep_manager)


def venv_of(section: InstanceSection, folder: Path) -> Path | None:
    return _path(folder, section.venv_path) if section.using_venv and section.venv_path else None


def base_url_of(section: InstanceSection, port: int) -> str:
    if section.url is not None:
        return section.url.rstrip("/")
    host = host_of(section)
    host = ANY_ADDRESS.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _instance(
    section: InstanceSection,
    port: int,
    sidecar: Sidecar | None,
    written: ConfigFile,
    folder: Path,
    environment: Mapping[str, str],
) -> Instance:
    facts = facts_of(section)
    venv = venv_of(section, folder)
    name = name_of(section)
    placeholders = {"{host}": host_of(section), "{port}": str(port), "{model}": section.model, "{name}": name}
    spec = EngineSpec(
        name=name,
        kind=kind_of(section),
        model=section.model,
        host=host_of(section),
        port=port,
        base_url=base_url_of(section, port),
        served_names=facts.served_names,
        python=str(venv / "bin" / "python") if venv else sys.executable,
        args=arguments_of(section),
        command=tuple(_fill(word, placeholders) for word in section.command),
        env=environment_of(section, written),
        gpus=section.gpus,
        sleep_flags=section.sleep_flags,
        remote=section.url is not None,
        adapters=facts.adapters,
        lora=facts.lora,
        takes_adapters=_takes_adapters(section, written),
        api_key=_key(section.api_key_env, environment),
    )
    return Instance(
        name=name,
        model=section.model,
        names=names_of(section),
        spec=spec,
        sleep=sleep_of(section, written),
        session=session_name(written.launch.session_prefix, name),
        timeouts=overridden(written.router.timeouts, section.timeouts),
        weight=section.weight,
        labels=dict(section.labels),
        footprint=memory.footprint(section, written),
        start=section.start,
        venv=venv,
        sidecar=sidecar,
    )


def _rivals(written: ConfigFile) -> dict[str, frozenset[str]]:
    """Model -> the models that may not be awake with it."""
    found: dict[str, frozenset[str]] = {}
    for group in written.groups.values():
        for member in group.members if group.exclusive else ():
            found[member] = found.get(member, frozenset()) | frozenset(group.members) - {member}
    return found


def _takes_adapters(section: InstanceSection, written: ConfigFile) -> bool:
    """Its label says so, or an adapter of the file may be loaded on it."""
    names, labels = names_of(section), section.labels
    return wants_adapters(labels) or any(selects(one, names, labels) for one in written.adapters)


def _key(variable: str | None, environment: Mapping[str, str]) -> str | None:
    """A key read from a file often ends with a newline, which no header may hold."""
    return environment[variable].strip() if variable is not None else None


def _fill(word: str, placeholders: Mapping[str, str]) -> str:
    return re.sub(r"\{[a-z]+\}", lambda mark: placeholders.get(mark[0], mark[0]), word)


def _path(folder: Path, text: str) -> Path:
    try:
        return folder / Path(text).expanduser()
    except RuntimeError:  # ~nobody: no such user, so it is a plain name
        return folder / text


def _state_url(file: Path, url: str | None) -> str:
    if url is None:
        return f"sqlite:///{file.with_name(file.stem + '.state.db')}"
    scheme, separator, path = url.partition(":///")
    if scheme.startswith("sqlite") and separator and path and path != ":memory:":
        return f"{scheme}:///{file.parent / path}"
    return url

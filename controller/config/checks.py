"""What no single key can tell: clashes between instances, things that must exist, wishes that cannot come true."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from controller.config import resolve
from controller.config.memory import gpus_of
from controller.config.mistakes import KeyPath
from controller.config.model import FRONTEND, SIDECAR_HOST, session_name
from controller.config.schema import ConfigFile, InstanceSection, RouterSection
from controller.config.values import EVERYWHERE, HOST
from runtime.engines.kinds import KINDS

Finding = tuple[KeyPath, str, str]
"""Where, what is wrong, what would be right."""

RESERVED = "all"


def check(written: ConfigFile, folder: Path, environment: Mapping[str, str]) -> Iterator[Finding]:
    yield from _keys(("router",), written.router.api_key_env, environment)
    yield from _sizes(written.router)
    yield from _instance_names(written)
    yield from _model_names(written)
    yield from _models(written)
    yield from _adapters(written)
    yield from _ports(written)
    for index, section in enumerate(written.instances):
        path: KeyPath = ("instances", index)
        yield from _origin(path, section)
        yield from _address(path, section)
        yield from _venv(path, section, folder)
        yield from _keys(path, section.api_key_env, environment)
        yield from _sleep(path, section, written, environment)
        yield from _gpus(path, section, written)
        yield from _memory(path, section, written)
        yield from _sidecar(path, section)
    yield from _groups(written)


def _keys(path: KeyPath, variable: str | None, environment: Mapping[str, str]) -> Iterator[Finding]:
    if variable is not None and not environment.get(variable, "").strip():
        yield (*path, "api_key_env"), f"the environment variable {variable} is not set", "set it to the key"


def _sizes(router: RouterSection) -> Iterator[Finding]:
    body, buffered = router.max_body_mb, router.max_buffered_mb
    if buffered >= body:
        return
    if "max_buffered_mb" in router.model_fields_set:
        problem = f"is less than max_body_mb ({body:g}): no body of that size would ever pass"
        yield ("router", "max_buffered_mb"), problem, f"make it {body:g} or more"
    else:
        problem = f"is more than max_buffered_mb ({buffered:g}): no body of that size would ever pass"
        yield ("router", "max_body_mb"), problem, f"set max_buffered_mb to {body:g} or more"


def _instance_names(written: ConfigFile) -> Iterator[Finding]:
    names: dict[str, int] = {}
    sessions: dict[str, str] = {session_name("", FRONTEND): "the router's own session"}
    for index, section in enumerate(written.instances):
        name = resolve.name_of(section)
        path = ("instances", index, "name" if section.name else "model")
        if name == RESERVED:
            yield path, f"the name {RESERVED!r} is taken by /health/{RESERVED}", "choose another name"
        if name in names:
            where = f"instances[{names[name]}]"
            yield path, f"the instance name {name!r} is already used by {where}", "give each instance a name of its own"
            continue
        names[name] = index
        session = session_name("", name)
        if session in sessions:
            problem = f"in tmux {name!r} becomes {session!r}, as does {sessions[session]}"
            yield path, problem, "choose names that differ in letters, digits, - or _"
        else:
            sessions[session] = f"instance {name!r}"
    for index, section in enumerate(written.instances):
        session = session_name("", resolve.runtime_name(section))
        if section.sidecar and session in sessions:
            problem = f"its sidecar's session would be called {session!r}, as is that of {sessions[session]}"
            yield ("instances", index, "sidecar"), problem, "rename one of the two"


def _model_names(written: ConfigFile) -> Iterator[Finding]:
    owners: dict[str, str] = {section.model: section.model for section in written.instances}
    for index, section in enumerate(written.instances):
        facts = resolve.facts_of(section)
        sources = {
            "model": (section.model,),
            "aliases": section.aliases,
            _arguments_key(section): (*facts.served_names, *facts.adapters),
        }
        if RESERVED in section.aliases or section.model == RESERVED:
            key = "model" if section.model == RESERVED else "aliases"
            problem = f"the model name {RESERVED!r} is taken by /health/{RESERVED}"
            yield ("instances", index, key), problem, "choose another name"
        for key, names in sources.items():
            for name in names:
                owner = owners.setdefault(name, section.model)
                if owner != section.model:
                    problem = f"the name {name!r} belongs to the model {owner!r} already"
                    yield ("instances", index, key), problem, "a name can lead to one model only"


def _models(written: ConfigFile) -> Iterator[Finding]:
    known = {section.model for section in written.instances}
    for name in written.models.keys() - known:
        yield ("models", name), "no instance serves this model", f"the models here are {', '.join(sorted(known))}"


def _adapters(written: ConfigFile) -> Iterator[Finding]:
    known = {name for section in written.instances for name in resolve.names_of(section)}
    taken = dict.fromkeys(known, "a model")
    for section in written.instances:
        taken.update(dict.fromkeys(resolve.facts_of(section).adapters, "an adapter that an engine loads at its start"))
    for index, adapter in enumerate(written.adapters):
        if adapter.name in taken:
            problem = f"{adapter.name!r} is the name of {taken[adapter.name]} already"
            yield ("adapters", index, "name"), problem, "choose another name"
        taken[adapter.name] = f"adapters[{index}]"
        if adapter.base not in known:
            problem = f"no instance serves the model {adapter.base!r}"
            yield ("adapters", index, "baseModel"), problem, f"the models here are {', '.join(sorted(known))}"


def _ports(written: ConfigFile) -> Iterator[Finding]:
    router = written.router
    taken: dict[tuple[str, int], str] = {}
    served: dict[tuple[str, int], set[str]] = {}
    if router.enable_router:
        taken[_machine(router.router_host), router.router_port] = "the router"
    for index, section in enumerate(written.instances):
        port = resolve.declared_port(section)
        if port is None:
            continue
        address = _machine(resolve.host_of(section)), port
        if address not in taken:
            taken[address] = f"instances[{index}]"
            served[address] = {section.model} if _shareable(section) else set()
        elif served.get(address) and _shareable(section) and section.model not in served[address]:
            served[address].add(section.model)
        else:
            key = "port" if section.port is not None else "url" if section.url is not None else _arguments_key(section)
            problem = f"port {port} is already used by {taken[address]}"
            yield ("instances", index, key), problem, "give each engine a port of its own"
    for index, section in enumerate(written.instances):
        if section.sidecar and section.sidecar_port is not None:
            address = _machine(SIDECAR_HOST), section.sidecar_port
            if address in taken:
                problem = f"port {section.sidecar_port} is already used by {taken[address]}"
                yield ("instances", index, "sidecar_port"), problem, "give each sidecar a port of its own"
            taken.setdefault(address, f"the sidecar of instances[{index}]")


def _arguments_key(section: InstanceSection) -> str:
    return "command" if section.command else "args" if section.args else "engine_args"


def _shareable(section: InstanceSection) -> bool:
    """A server that runs already may serve many models at one address. One that sleeps serves one: it sleeps whole."""
    return section.url is not None and not KINDS[resolve.kind_of(section)].can_sleep


def _machine(host: str) -> str:
    """All loopback and any-addresses are one machine: this one."""
    local = ("localhost", "0.0.0.0", "::", "::1", "*")
    return "127.0.0.1" if host in local or host.startswith("127.") else host


def _origin(path: KeyPath, section: InstanceSection) -> Iterator[Finding]:
    if section.engine is None and not section.command and section.url is None:
        yield (*path, "engine"), "is missing", f"write one of {', '.join(KINDS)}"
    kind = KINDS[resolve.kind_of(section)]
    if section.engine is not None and kind.command is None and not section.command and section.url is None:
        problem = f"an engine of kind {section.engine!r} cannot be started from a model name"
        yield (*path, "engine"), problem, "add url (it runs already) or command (how to start it)"
    if section.url is not None:
        # With memory_gib, gpus says where its memory is.
        meaningless = ("command", "host", "port", "using_venv", "sidecar", *(() if section.memory_gib else ("gpus",)))
        for key in meaningless:
            if getattr(section, key):
                problem = f"means nothing beside url: {section.url} is never launched"
                yield (*path, key), problem, "remove one of the two"
    if section.command and resolve.arguments_of(section):
        key = "engine_args" if section.engine_args else "args"
        yield (*path, key), "means nothing beside command, which is run as it is", "write them into the command"
    elif section.engine_args and section.args:
        yield (*path, "args"), "is another name for engine_args, and both are given", "keep one of them"


def _address(path: KeyPath, section: InstanceSection) -> Iterator[Finding]:
    if section.command:
        return  # its arguments need not mean what an engine's mean: docker run has a --host too
    facts = resolve.facts_of(section)
    port = resolve.port_number(facts.port) if facts.port is not None else None
    if facts.port is not None and port is None:
        yield (*path, _arguments_key(section)), f"--port {facts.port!r} is no port", "write a number from 1 to 65535"
    elif port is not None and section.port is not None and port != section.port:
        yield (*path, "port"), f"{section.port} here, but --port {facts.port} in the arguments", "keep one of them"
    if facts.host and not HOST.fullmatch(facts.host):
        yield (*path, _arguments_key(section)), f"--host {facts.host!r} is no host", "write a name or an address"
    elif facts.host is not None and section.host is not None and facts.host != section.host:
        yield (*path, "host"), f"{section.host} here, but --host {facts.host} in the arguments", "keep one of them"


def _venv(path: KeyPath, section: InstanceSection, folder: Path) -> Iterator[Finding]:
    if not section.using_venv:
        return
    if section.venv_path is None:
        yield (*path, "venv_path"), "is missing, but using_venv is true", "say where the virtual environment is"
        return
    venv = resolve.venv_of(section, folder)
    if venv is not None and not os.path.exists(venv / "bin" / "python"):  # noqa: PTH110 - Path.exists raises
        yield (*path, "venv_path"), f"no virtual environment at {venv}", f"python3 -m venv {venv}, or mend the path"


def _sleep(
    path: KeyPath, section: InstanceSection, written: ConfigFile, environment: Mapping[str, str]
) -> Iterator[Finding]:
    own = section.sleep_manager
    said_here = "auto_sleep_enabled" in own.model_fields_set
    if not resolve.sleep_of(section, written).auto_sleep_enabled:
        return
    kind = KINDS[resolve.kind_of(section)]
    if not kind.can_sleep and not said_here:
        return  # the global wish is meant for those that can
    # Whether an engine that runs already, or one behind a wrapper, can sleep is found out by asking it.
    if kind.can_sleep and (section.url is not None or section.command):
        return
    # What the launcher's own environment says counts only where we do not set it ourselves.
    env = {**({} if section.sleep_flags else environment), **resolve.environment_of(section, written)}
    obstacle = kind.sleep_obstacle(resolve.arguments_of(section), env, section.sleep_flags)
    if obstacle is not None:
        key = (*path, "sleep_manager", "auto_sleep_enabled") if said_here else path
        yield key, f"is to sleep when idle, but cannot: {obstacle}", _sleep_fix(section)


def _sleep_fix(section: InstanceSection) -> str:
    off = "set sleep_manager: {auto_sleep_enabled: false} here"
    return off if section.sleep_flags else f"remove sleep_flags: false, or {off}"


def _gpus(path: KeyPath, section: InstanceSection, written: ConfigFile) -> Iterator[Finding]:
    if len(set(section.gpus)) != len(section.gpus):
        yield (*path, "gpus"), "names a GPU twice", "name each once"
    visible = resolve.environment_of(section, written).get("CUDA_VISIBLE_DEVICES")
    if section.gpus and visible is not None and visible.replace(" ", "") != ",".join(map(str, section.gpus)):
        problem = f"{list(section.gpus)} here, but CUDA_VISIBLE_DEVICES={visible} in the environment"
        yield (*path, "gpus"), problem, "keep one of them"


def _memory(path: KeyPath, section: InstanceSection, written: ConfigFile) -> Iterator[Finding]:
    amount = section.memory_gib
    if amount is None:
        for key in ("asleep_memory_gib", "host_memory_gib"):
            if getattr(section, key) is not None:
                yield (*path, key), "means nothing without memory_gib", "say what it takes awake, too"
        return
    gpus = gpus_of(section, written)
    if not gpus:
        yield (*path, "memory_gib"), "is given, but not of which GPU", "add gpus: [0]"
    for key in ("memory_gib", "asleep_memory_gib"):
        named = getattr(section, key)
        numbers = set(named or ()) - {EVERYWHERE}
        if section.gpus and numbers - set(section.gpus):
            yield (
                (*path, key),
                f"names GPU {min(numbers - set(section.gpus))}, which is not in gpus",
                "mend one of them",
            )
    unknown = set(gpus) - set(written.gpus)
    if written.gpus and unknown:
        problem = f"GPU {min(unknown)} is not among those at the top of the file ({', '.join(map(str, written.gpus))})"
        yield (*path, "gpus" if section.gpus else "memory_gib"), problem, "add it there, or mend the number"


def _sidecar(path: KeyPath, section: InstanceSection) -> Iterator[Finding]:
    kind = resolve.kind_of(section)
    if section.sidecar_port is not None and not section.sidecar:
        yield (*path, "sidecar_port"), "means nothing without sidecar: true", "add it, or remove this"
    if section.sidecar and not KINDS[kind].metrics:
        able = ", ".join(name for name, one in KINDS.items() if one.metrics)
        yield (*path, "sidecar"), f"there is no sidecar for an engine of kind {kind!r}", f"there is for {able}"


def _groups(written: ConfigFile) -> Iterator[Finding]:
    known = {section.model for section in written.instances}
    for name, group in written.groups.items():
        for member in group.members:
            if member not in known:
                problem = f"no instance serves the model {member!r}"
                yield ("groups", name, "members"), problem, f"the models here are {', '.join(sorted(known))}"

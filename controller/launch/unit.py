"""What the launcher starts: an engine, a sidecar beside one, or the frontend (the router). One tmux session each."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import controller
from controller.config.model import FRONTEND, SIDECAR_HOST, Config, Instance, Sidecar, session_name
from controller.config.resolve import ANY_ADDRESS
from controller.launch import environment
from controller.launch.mask import Mask
from runtime.engines.kinds import command, dialect
from runtime.engines.spec import CALL_SECONDS, EngineSpec

YAML_DIGEST = "the YAML file"
"""Under this name the digest of the YAML is kept among the frontend's variables: the router reads all of it."""


ENGINE_KEY, CALLS = "ENGINE_API_KEY", "REQUEST_TIMEOUT"
"""Variables of the sidecar: the engine's key, and how long a call to the engine may take, in seconds."""
SIDECAR_ROOTS = (Path("/models"), Path("/tmp/aibrix"))

Start = tuple[list[str], dict[str, str]]
"""An argv and an environment as they are kept: without what is secret."""


@dataclass(frozen=True, slots=True)
class Service:
    """Something of ours that runs beside the engines. ``health``: what its ``/health`` answers."""

    kind: str
    health: Mapping[str, str]


ROUTER = Service("router", {"status": "healthy"})
SIDECAR = Service("sidecar", {"status": "healthy", "service": "runtime"})


@dataclass(frozen=True, slots=True)
class Unit:
    """``environment``: all of it. ``declared``: what does not come from the launcher's own. ``config``: whose it is.

    An engine has its ``instance``, anything else its ``service``.
    """

    name: str
    session: str
    config: str
    argv: tuple[str, ...]
    folder: Path
    log: Path
    host: str
    port: int
    url: str
    environment: Mapping[str, str] = field(repr=False)
    declared: Mapping[str, str] = field(repr=False)
    mask: Mask = field(repr=False)
    instance: Instance | None = None
    service: Service | None = None

    @property
    def marker(self) -> str:
        return self.environment[environment.MARKER]

    @property
    def what(self) -> str:
        """In words."""
        if self.instance is not None:
            return f"{self.instance.model} ({self.instance.spec.kind})"
        return f"the {self.service.kind}" if self.service is not None else self.name

    @property
    def record(self) -> Start:
        """How it is started, as that is kept."""
        return self.mask.kept(self.argv), environment.digests(self.declared)


def owner_of(file: Path) -> str:
    """What marks the sessions of one YAML file as its own."""
    return str(file.resolve())


def log_of(config: Config, name: str) -> Path:
    return config.log_dir / f"{session_name('', name)}.log"


def units(config: Config, process: Mapping[str, str], frontend: Sequence[str]) -> tuple[Unit, ...]:
    """All that the YAML wants launched, the frontend first. ``process``: the launcher's own environment."""
    found = [frontend_unit(config, process, frontend)] if config.router.enable_router else []
    for instance in config.instances:
        if instance.launched:
            found.append(engine_unit(config, instance, process))
        if instance.sidecar is not None:
            found.append(sidecar_unit(config, instance, instance.sidecar, process))
    return tuple(found)


def engine_unit(config: Config, instance: Instance, process: Mapping[str, str]) -> Unit:
    start, folder, owner = command(instance.spec), config.file.parent, owner_of(config.file)
    mark = environment.marker(owner, instance.name)
    return Unit(
        name=instance.name,
        session=instance.session,
        config=owner,
        argv=start.argv,
        folder=folder,
        log=log_of(config, instance.name),
        host=instance.spec.host,
        port=instance.spec.port,
        url=instance.spec.base_url,
        environment=environment.compose(process, start.env, folder=folder, venv=instance.venv, mark=mark),
        declared={**({"VIRTUAL_ENV": str(instance.venv)} if instance.venv else {}), **start.env},
        mask=mask_of(config),
        instance=instance,
    )


def frontend_unit(config: Config, process: Mapping[str, str], argv: Sequence[str]) -> Unit:
    folder, owner = config.file.parent, owner_of(config.file)
    mark = environment.marker(owner, FRONTEND)
    return Unit(
        name=FRONTEND,
        session=config.frontend_session,
        config=owner,
        argv=tuple(argv),
        folder=folder,
        log=log_of(config, FRONTEND),
        host=config.router.router_host,
        port=config.router.router_port,
        url=router_url(config),
        environment=environment.compose(process, _own_packages(process), folder=folder, venv=None, mark=mark),
        declared={YAML_DIGEST: config.digest},
        mask=mask_of(config),
        service=ROUTER,
    )


def sidecar_unit(config: Config, instance: Instance, sidecar: Sidecar, process: Mapping[str, str]) -> Unit:
    folder, owner, spec = config.file.parent, owner_of(config.file), instance.spec
    mark = environment.marker(owner, sidecar.name)
    key = {ENGINE_KEY: spec.api_key} if spec.api_key else {}
    declared = {CALLS: process.get(CALLS, f"{CALL_SECONDS:g}"), **key}
    return Unit(
        name=sidecar.name,
        session=sidecar.session,
        config=owner,
        argv=sidecar_command(config, instance, sidecar),
        folder=folder,
        log=log_of(config, sidecar.name),
        host=SIDECAR_HOST,
        port=sidecar.port,
        url=sidecar.url,
        environment=environment.compose(
            process, {**_own_packages(process), **declared}, folder=folder, venv=None, mark=mark
        ),
        declared=declared,
        mask=mask_of(config),
        service=SIDECAR,
    )


def sidecar_command(config: Config, instance: Instance, sidecar: Sidecar) -> tuple[str, ...]:
    """It may write to the store of adapters, and where the programs that it stands for put things."""
    spec = instance.spec
    words = ["--engine", dialect(spec), "--engine-base-url", spec.base_url, "--model", spec.model, "--pod", spec.name]
    words += ["--host", SIDECAR_HOST, "--port", str(sidecar.port)]
    for root in (config.adapters_folder, *SIDECAR_ROOTS):
        words += ["--allow-root", str(root)]
    if spec.lora.max_rank is not None:
        words += ["--max-lora-rank", str(spec.lora.max_rank)]
    return (sys.executable, "-P", "-m", "runtime", *words)


def frontend_command(config: Config) -> tuple[str, ...]:
    """The router. ``-P``: a ``router.py`` beside the YAML, as kvcached's own folder has one, is not ours."""
    return (sys.executable, "-P", "-m", "router", "--config", str(config.file))


def router_url(config: Config) -> str:
    """Where the router is reached from this machine."""
    host = ANY_ADDRESS.get(config.router.router_host, config.router.router_host)
    return (
        f"http://[{host}]:{config.router.router_port}" if ":" in host else f"http://{host}:{config.router.router_port}"
    )


def mask_of(config: Config) -> Mask:
    keys = [config.api_key, *(instance.spec.api_key for instance in config.instances)]
    return Mask(tuple(dict.fromkeys(key for key in keys if key)))


@dataclass(frozen=True, slots=True)
class Additions:
    """What was added to a user's command so that the engine can sleep."""

    flags: tuple[str, ...] = ()
    variables: Mapping[str, str] = field(default_factory=dict)


def sleep_additions(spec: EngineSpec) -> Additions:
    """The difference that ``sleep_flags: false`` would make."""
    if spec.remote:
        return Additions()
    with_them, without = command(spec), command(replace(spec, sleep_flags=False))
    return Additions(
        flags=tuple(word for word in with_them.argv if word not in without.argv),
        variables={name: value for name, value in with_them.env.items() if name not in without.env},
    )


def launchers_environment() -> dict[str, str]:
    """What engines inherit that this process starts: of a frontend that the launcher started, the launcher's own."""
    process = dict(os.environ)
    own = _own_packages({}).get("PYTHONPATH")
    if own is None or environment.MARKER not in process:
        return process
    added, _, rest = process.get("PYTHONPATH", "").partition(":")
    if added == own:
        process.pop("PYTHONPATH")
        process |= {"PYTHONPATH": rest} if rest else {}
    return process


def _own_packages(process: Mapping[str, str]) -> dict[str, str]:
    """Where the router is found when it runs from a checkout that is not installed."""
    root = Path(controller.__file__).resolve().parents[1]
    if root.name in ("site-packages", "dist-packages"):
        return {}
    rest = process.get("PYTHONPATH")
    return {"PYTHONPATH": f"{root}:{rest}" if rest else str(root)}

"""What the command line shows: tables, plans, hints."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from controller.config.model import FRONTEND, Config, Instance
from controller.launch import plan
from controller.launch.display import say
from controller.launch.environment import MARKER
from controller.launch.survey import Row
from controller.launch.tmux import Pane
from controller.launch.unit import Additions, Unit, router_url, sleep_additions
from runtime.address import is_loopback
from runtime.engines.kinds import KINDS


def table(console: Console, rows: Sequence[Row]) -> None:
    shown = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for column in ("instance", "model", "engine", "URL", "state", "attach"):
        shown.add_column(column, overflow="fold")
    for row in rows:
        words = (row.name, row.model, row.engine, row.url)
        state = Text(row.state, style="green" if row.healthy else "red")
        shown.add_row(*map(Text, words), state, Text(attach(row.session) if row.session else ""))
    console.print(shown)


def attach(session: str) -> str:
    return f"tmux attach -t '={session}'"


def address(console: Console, config: Config) -> None:
    """Where clients go, and a request to paste."""
    if not config.router.enable_router:
        return
    url = router_url(config)
    key = config.router.api_key_env
    bearer = f' -H "Authorization: Bearer ${key}"' if key else ""
    body = {"model": config.models[0], "messages": [{"role": "user", "content": "Hello"}]}
    say(console, f"\nOne address for all of them: {url}/v1")
    headers = f"-H 'Content-Type: application/json'{bearer}"
    say(console, f"  curl {url}/v1/chat/completions {headers} -d {shlex.quote(json.dumps(body))}")


def openness(config: Config) -> list[str]:
    """What can be reached from other machines without a key."""
    found = []
    router = config.router
    if router.enable_router and not is_loopback(router.router_host) and config.api_key is None:
        found.append(
            f"OPEN: the router listens on {router.router_host}:{router.router_port} without a key. Whoever reaches it "
            "can use every model, put models to sleep, wake them and read the traffic statistics. "
            "Set router.api_key_env, or router_host: 127.0.0.1."
        )
    for instance in config.instances:
        spec = instance.spec
        if instance.launched and not is_loopback(spec.host) and spec.api_key is None:
            found.append(
                f"OPEN: {instance.name} listens on {spec.host}:{spec.port} without a key of the router's knowledge. "
                "Whoever reaches it can use it, and its administration too. Set api_key_env, or host: 127.0.0.1."
            )
    return found


def check(console: Console, config: Config, units: Sequence[Unit]) -> None:
    """The plan that a valid file amounts to."""
    say(console, f"{config.file} is valid: {len(config.instances)} instances, {len(config.models)} models.")
    for instance in config.instances:
        if not instance.launched:
            say(console, f"\n{instance.name}: {instance.model}, runs already at {instance.spec.base_url}; not launched")
    ordered = plan.order(units)
    begun = [unit for unit in ordered if unit.instance is None or unit.instance.start != "stopped"]
    for unit in ordered:
        say(console, f"\n{unit.name}: {unit.what} at {unit.url}, tmux session {unit.session}, log {unit.log}")
        if unit.instance is not None:
            _additions(console, unit.instance)
            _sleep(console, unit.instance)
        if unit in begun and (waits := plan.before(unit, begun)):
            say(console, f"  starts when {', '.join(waits)} came up or failed: it may share a GPU")
    for warning in openness(config):
        say(console, f"\n{warning}")


def commands(console: Console, units: Sequence[Unit]) -> None:
    """The exact commands and environments, without secrets, so that they can be read and pasted."""
    for unit in units:
        say(console, f"# {unit.name}, tmux session {unit.session}, log {unit.log}")
        if unit.instance is not None:
            _additions(console, unit.instance)
        say(console, f"cd {shlex.quote(str(unit.folder))}")
        variables = dict(sorted(unit.environment.items()))
        say(console, "env -i \\")
        for name, value in variables.items():
            if name != MARKER:
                say(console, f"  {name}={shlex.quote(unit.mask.value(name, value))} \\")
        say(console, f"  {shlex.join(unit.mask.words(unit.argv))}\n")


def sessions(console: Console, panes: Sequence[Pane], config: Config | None) -> None:
    """One line for each session: its name, what it is, whose it is."""
    known = _names(config) if config else set()
    for pane in sorted(panes, key=lambda pane: pane.session):
        state = f"died ({pane.status})" if pane.dead else f"pid {pane.pid}"
        notes = [state, *(["attached"] if pane.attached else [])]
        if not pane.config:
            notes.append("not made by this launcher")
        elif config is not None and pane.unit not in known:
            notes.append("no longer in the YAML")
        say(console, f"{pane.session}: {', '.join(notes)}")
    if not panes:
        say(console, "no sessions")


def _names(config: Config) -> set[str]:
    beside = {instance.sidecar.name for instance in config.instances if instance.sidecar}
    return {instance.name for instance in config.instances} | beside | {FRONTEND}


def _additions(console: Console, instance: Instance) -> None:
    added: Additions = sleep_additions(instance.spec)
    words = [*added.flags, *(f"{name}={value}" for name, value in added.variables.items())]
    if words:
        say(console, f"  # added so that it can sleep (sleep_flags: false leaves it out): {' '.join(words)}")


def _sleep(console: Console, instance: Instance) -> None:
    sleep = instance.sleep
    if instance.start == "asleep":
        say(console, "  is put to sleep when it is ready, before the next one starts")
    elif instance.start == "stopped":
        say(console, "  is not started: its first request starts it")
    if sleep.auto_sleep_enabled:
        say(console, f"  sleeps after {sleep.idle_threshold_seconds:g} s without a request")
    levels = KINDS[instance.spec.kind].capabilities(instance.spec).levels_from(sleep.level)
    if sleep.level2_after_seconds is not None and len(levels) > 1:
        say(console, f"  drops its weights after {sleep.level2_after_seconds:g} s asleep")
    if sleep.stop_after_seconds is not None:
        say(console, f"  its process is ended after {sleep.stop_after_seconds:g} s asleep, and started by a request")

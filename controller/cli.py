"""``python launch.py`` and ``torpor``: the command line of the fleet."""

from __future__ import annotations

import argparse
import asyncio
import os
import shlex
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from rich.console import Console

from controller.adapters import commands
from controller.adapters.credentials import CredentialsUnusable
from controller.adapters.remote import GatewayRefused
from controller.config.json_schema import render
from controller.config.load import load
from controller.config.mistakes import ConfigError
from controller.config.model import Config
from controller.config.schema import LaunchSection
from controller.doctor.examination import Examination
from controller.launch import report
from controller.launch.display import say
from controller.launch.exclusion import AtWork
from controller.launch.operations import Operations, UnknownName, kill_sessions, sessions_of
from controller.launch.tmux import Tmux, TmuxError
from controller.reload.operations import Changes
from state.database import StateError

DEFAULT_CONFIG = "example-config.yaml"
WIDE = 500
"""Columns when nobody looks: a line is one line, whatever reads it."""

OK, FAILED, MISTAKEN, INTERRUPTED = 0, 1, 2, 130


def main(argv: Sequence[str] | None = None) -> int:
    options = parse(argv)
    out, err = console(stderr=False), console(stderr=True)
    try:
        return act(options, out)
    except (ConfigError, UnknownName) as mistaken:
        say(err, str(mistaken))
        return MISTAKEN
    except (AtWork, TmuxError, StateError, GatewayRefused, CredentialsUnusable) as failed:
        say(err, str(failed))
        return FAILED
    except KeyboardInterrupt:
        if not options.logs:
            again = f"{Path(sys.argv[0]).name} --config {shlex.quote(options.config)}"
            say(err, "\ninterrupted; what was started goes on")
            say(err, f"  look:  {again} --status    or --logs NAME --follow")
            say(err, f"  stop:  {again} --kill-all  or --stop NAME")
        return INTERRUPTED
    except BrokenPipeError:  # `--logs x | head`; Python would complain once more when it closes stdout
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK


def act(options: argparse.Namespace, out: Console) -> int:
    if options.version:
        say(out, f"torpor {version()}")
        return OK
    if options.schema:
        say(out, render().rstrip())
        return OK
    file = Path(options.config)
    if options.kill_all or options.list_sessions:
        return _sessions(options, out, file)
    config = load(file)
    if commands.asked(options):
        commands.act(options, config, os.environ, lambda text: say(out, text))
        return OK
    operations = Changes(config, out, dict(os.environ))
    if options.check:
        return operations.check()
    if options.dry_run:
        return operations.dry_run(options.only)
    if options.logs:
        return operations.log(options.logs, follow=options.follow)
    if options.doctor:
        return asyncio.run(Examination(config, out, dict(os.environ)).doctor())
    if options.status:
        return asyncio.run(operations.status())
    if options.plan:
        return asyncio.run(operations.plan())
    if options.reload:
        return asyncio.run(operations.reload())
    if options.stop:
        return asyncio.run(operations.stop(options.stop))
    if options.restart:
        return asyncio.run(operations.restart(options.restart, wait=not options.no_wait))
    return asyncio.run(operations.up(options.only, wait=not options.no_wait))


def _sessions(options: argparse.Namespace, out: Console, file: Path) -> int:
    """What is about tmux sessions goes by their tags, so it works while the YAML is broken, too."""
    config: Config | None = None
    prefix = LaunchSection().session_prefix
    try:
        config = load(file)
        prefix = config.launch.session_prefix
    except ConfigError:
        if not options.all and not sessions_of(Tmux().panes(), file, None):
            raise
    everything = prefix if options.all else None
    if options.list_sessions:
        report.sessions(out, sessions_of(Tmux().panes(), file, everything), config)
        return OK
    if config is not None and not options.all:
        return asyncio.run(Operations(config, out, dict(os.environ)).kill_all())
    return asyncio.run(kill_sessions(out, file, everything))


def version() -> str:
    try:
        return metadata.version("torpor")
    except metadata.PackageNotFoundError:
        return "(a checkout that is not installed)"


def console(*, stderr: bool) -> Console:
    stream = sys.stderr if stderr else sys.stdout
    return Console(stderr=stderr, width=None if stream.isatty() else WIDE)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Start the engines and the router of one YAML file, each in a tmux session, and look after them.",
        epilog="NAME is an instance's name, or 'frontend' for the router. "
        "Exit status: 0 all is up, 1 something is not, 2 a mistake in the YAML or here.",
        allow_abbrev=False,
    )
    parser.add_argument("--config", metavar="FILE", default=DEFAULT_CONFIG, help="the YAML file (%(default)s)")
    parser.add_argument("--only", metavar="NAME", action="append", default=[], help="start just this one; repeatable")
    parser.add_argument("--no-wait", action="store_true", help="do not wait until engines are ready")
    parser.add_argument("--all", action="store_true", help="with --kill-all, --list-sessions: all with the prefix")
    parser.add_argument("-f", "--follow", action="store_true", help="with --logs: go on as lines arrive")
    actions = parser.add_mutually_exclusive_group()
    actions.add_argument("--status", action="store_true", help="show the table as it is now")
    actions.add_argument("--logs", metavar="NAME", help="print the log")
    actions.add_argument("--stop", metavar="NAME", action="append", default=[], help="stop this one; repeatable")
    actions.add_argument("--restart", metavar="NAME", action="append", default=[], help="stop and start; repeatable")
    actions.add_argument("--plan", action="store_true", help="show what --reload would change of what runs")
    actions.add_argument("--reload", action="store_true", help="apply the file to what runs; no request is lost")
    actions.add_argument("--kill-all", action="store_true", help="stop all that this file's launches started")
    actions.add_argument("--list-sessions", action="store_true", help="list this file's tmux sessions")
    actions.add_argument("--doctor", action="store_true", help="look for what is wrong, and say how to mend it")
    actions.add_argument("--check", action="store_true", help="validate the file and show the plan")
    actions.add_argument("--dry-run", action="store_true", help="print the exact commands and environments")
    commands.add_arguments(actions)
    actions.add_argument("--schema", action="store_true", help="print the file's JSON Schema, for editors")
    actions.add_argument("--version", action="store_true", help="print the version")
    options = parser.parse_args(argv)
    if problem := commands.mistake(options):
        parser.error(problem)
    if options.follow and not options.logs:
        parser.error("--follow goes with --logs")
    if options.all and not (options.kill_all or options.list_sessions):
        parser.error("--all goes with --kill-all or --list-sessions")
    return options


if __name__ == "__main__":
    sys.exit(main())

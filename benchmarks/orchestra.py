"""One load client for each model against the router, from the start to the table at the end."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from benchmarks import report
from benchmarks.ledger import Account, Ledger, Unreachable, compare
from benchmarks.places import STOP_SECONDS, CannotRun, Children, Place, Sessions, session_of
from benchmarks.report import Run, say
from benchmarks.settings import Load, add_load_options, base_url, read_key
from controller.config.load import load as load_config
from controller.config.mistakes import ConfigError
from controller.config.model import Config
from controller.launch.tmux import TmuxError

POLL_SECONDS = 0.1
WIDE = 200
OK, FAILED, MISTAKEN = 0, 1, 2


@dataclass(frozen=True, slots=True)
class Target:
    """``session``: named after the model's first instance. ``engine_options``: its engine knows ``ignore_eos``."""

    model: str
    session: str
    engine_options: bool


class Stop:
    """Whether Ctrl-C was pressed, or the program told to end."""

    def __init__(self) -> None:
        self.wanted = False

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        def want(*_: object) -> None:
            self.wanted = True

        numbers = (signal.SIGINT, signal.SIGTERM)
        before = [signal.signal(number, want) for number in numbers]
        try:
            yield
        finally:
            for number, handler in zip(numbers, before, strict=True):
                signal.signal(number, handler)


class Orchestra:
    """All clients of one run. ``folder``: where they meet and leave their results."""

    def __init__(self, targets: Sequence[Target], place: Place, folder: Path, stop: Stop) -> None:
        self._targets = targets
        self._place = place
        self._folder = folder
        self._stop = stop

    def play(self, command: Sequence[str]) -> None:
        """Start all, let them begin together, wait for the last. Raises ``CannotRun`` with none left running."""
        for target in self._targets:
            self._place.close(target.session)  # an older run's
        try:
            for target in self._targets:
                self._place.start(target.session, [*command, *self._words(target)])
        except CannotRun:
            self._end()
            raise
        self._wait(lambda target: not (self._folder / f"{target.session}.ready").exists())
        (self._folder / "go").touch()
        self._wait(lambda _: True)
        self._end()

    def result(self, target: Target) -> dict[str, object] | None:
        try:
            found: dict[str, object] = json.loads((self._folder / f"{target.session}.json").read_text())
        except FileNotFoundError:
            return None
        return found

    def _words(self, target: Target) -> list[str]:
        flag = "--engine-options" if target.engine_options else "--no-engine-options"
        return [f"--model={target.model}", f"--rendezvous={self._folder / target.session}", flag]

    def _wait(self, busy: Callable[[Target], bool]) -> None:
        while not self._stop.wanted and any(
            self._place.runs(target.session) and busy(target) for target in self._targets
        ):
            time.sleep(POLL_SECONDS)

    def _end(self) -> None:
        for target in self._targets:
            self._place.stop(target.session)
        deadline = time.monotonic() + STOP_SECONDS
        while time.monotonic() < deadline and any(self._place.runs(target.session) for target in self._targets):
            time.sleep(POLL_SECONDS)


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code 0 when every request of every model was answered well, 1 when not, 2 for a mistake in the options."""
    options = parse(argv)
    console = Console(width=None if sys.stdout.isatty() else WIDE, highlight=False)
    complain = Console(stderr=True, highlight=False)
    try:
        config = load_config(options.config)
        targets = choose(config, options.only)
        key_variable = options.api_key_env or config.router.api_key_env
        key = read_key(key_variable)
        return perform(options, config, targets, key_variable, key, console)
    except (ConfigError, ValueError) as mistaken:
        say(complain, str(mistaken))
        return MISTAKEN
    except (Unreachable, CannotRun, TmuxError) as failed:
        say(complain, str(failed))
        return FAILED


def perform(
    options: argparse.Namespace,
    config: Config,
    targets: Sequence[Target],
    key_variable: str | None,
    key: str | None,
    console: Console,
) -> int:
    load, url = Load.of(options), options.base_url or router_url(config)
    ledger = Ledger(url, key)
    before = {target.model: ledger.read(target.model) for target in targets}
    environment = dict(os.environ)
    place: Place = Children(environment) if options.no_tmux else Sessions(config, environment)
    command = [sys.executable, "-m", "benchmarks.client", f"--base-url={url}", *load.argv()]
    command += [f"--api-key-env={key_variable}"] if key_variable else []
    say(console, f"{len(targets)} models at {url}, each: {load.describe()}")
    if not options.no_tmux:
        for target in targets:
            say(console, f"  {target.model}: tmux attach -t {target.session}")
    folder, stop = Path(tempfile.mkdtemp(prefix="torpor-benchmark-")), Stop()
    try:
        with stop.listening():
            orchestra = Orchestra(targets, place, folder, stop)
            orchestra.play(command)
            runs = [finished(target, orchestra, ledger, before[target.model]) for target in targets]
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        ledger.close()
        if options.close or options.no_tmux:
            for target in targets:
                place.close(target.session)
    say(console)
    report.show(console, runs)
    report.show_comparison(console, runs)
    if options.json is not None:
        document = report.document(load, url, str(config.file), runs)
        options.json.write_text(json.dumps(document, indent=2) + "\n")
        say(console, f"Written: {options.json}")
    return OK if all(run.good for run in runs) else FAILED


def finished(target: Target, orchestra: Orchestra, ledger: Ledger, before: Account | None) -> Run:
    run = Run(target.model, target.session)
    result = orchestra.result(target)
    if result is not None:
        run.take(result)
    if before is not None:
        try:
            after = ledger.settled(target.model)
        except Unreachable:
            after = None
        if after is not None:
            run.rows = tuple(compare(before, after, run.wire))
    return run


def choose(config: Config, only: Sequence[str]) -> tuple[Target, ...]:
    """The models called ``only`` (or by an alias, or an instance's name), all when none is. Raises ``ValueError``."""
    chosen, known = [], set[str]()
    for model in config.models:
        instances = config.instances_of(model)
        names = {model, *(name for one in instances for name in (one.name, *one.names))}
        known |= names
        if not only or names & set(only):
            strict = any(one.spec.kind == "openai" for one in instances)
            chosen.append(Target(model, session_of(instances[0].name), engine_options=not strict))
    unknown = [name for name in only if name not in known]
    if unknown:
        raise ValueError(f"there is no model {unknown[0]!r} in {config.file}; it has {', '.join(config.models)}")
    return tuple(chosen)


def router_url(config: Config) -> str:
    """Where the router of this file is reached from this machine."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(config.router.router_host, config.router.router_host)
    return f"http://{f'[{host}]' if ':' in host else host}:{config.router.router_port}"


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="benchmark.py",
        description="Put load on every model of one YAML file through its router, each from a tmux session of its own.",
        epilog="Exit status: 0 all answers were good, 1 some were not, 2 a mistake in the YAML or here.",
        allow_abbrev=False,
    )
    parser.add_argument("--config", default="example-config.yaml", metavar="FILE", help="the YAML file (%(default)s)")
    parser.add_argument("--only", action="append", default=[], metavar="MODEL", help="just this one; repeatable")
    parser.add_argument("--base-url", type=base_url, metavar="URL", help="another server than the file's router")
    parser.add_argument("--api-key-env", metavar="VARIABLE", help="variable with the key (router.api_key_env)")
    add_load_options(parser)
    parser.add_argument("--json", type=Path, metavar="PATH", help="write the figures here, too")
    parser.add_argument("--no-tmux", action="store_true", help="run the clients as child processes, for CI")
    parser.add_argument("--close", action="store_true", help="end the sessions afterwards")
    return parser.parse_args(argv)

"""What is well, what is not, and how to mend it. Pure: facts in, findings out."""

from __future__ import annotations

import re
from collections.abc import Iterator

from controller.config.model import Config, Instance
from controller.doctor import memory
from controller.doctor.finding import Facts, Finding, Level, Program
from controller.launch.tmux import MISSING
from controller.residency.memory import GIB, gib
from runtime.engines.kinds import KINDS

OLDEST_TMUX = (3, 0)
LOG_SPACE = GIB
FILES = 4096
"""Fewer open files, and the gateway has to limit its connections."""

ALONE = {
    1: "sleeps at level 1 alone, its weights in the host's memory",
    2: "sleeps at level 2 alone, and reads its weights again to wake",
}
"""What is said of an engine with one level of sleep."""


def judge(config: Config, facts: Facts) -> list[Finding]:
    return [
        *_tmux(facts),
        *_state(facts),
        *(finding for program in facts.programs for finding in _program(program)),
        *_gpus(config, facts),
        *memory.judge(config, facts.gpus, facts.memory),
        *(finding for instance in config.instances for finding in _sleep(instance)),
        *(Finding(Level.PROBLEM, "access", what) for what in facts.open),
        *_machine(config, facts),
        *_leftovers(facts),
    ]


def _tmux(facts: Facts) -> Iterator[Finding]:
    if facts.tmux is None:
        yield Finding(Level.PROBLEM, "tmux", "is not installed", MISSING.partition("\n")[2].strip())
        return
    found = re.search(r"(\d+)\.(\d+)", facts.tmux)
    if found and (int(found[1]), int(found[2])) < OLDEST_TMUX:
        yield Finding(Level.PROBLEM, "tmux", f"{facts.tmux} is too old", "install tmux 3.0 or newer")
    else:
        yield Finding(Level.OK, "tmux", facts.tmux)


def _state(facts: Facts) -> Iterator[Finding]:
    if facts.state_problem is not None:
        yield Finding(Level.PROBLEM, "state", facts.state_problem, "see state.url, and who may write there")
    else:
        yield Finding(Level.OK, "state", "the database can be used")


def _program(program: Program) -> Iterator[Finding]:
    if program.missing is not None:
        yield Finding(Level.PROBLEM, program.name, program.missing, "see venv_path, using_venv and command")
    if program.holder is not None:
        what = f"port {program.port} is taken by {program.holder}"
        yield Finding(Level.PROBLEM, program.name, what, "end that, or give another port")
    if program.missing is None and program.holder is None:
        version = f", {program.version}" if program.version else ""
        yield Finding(Level.OK, program.name, f"port {program.port} is free or its own{version}")


def _gpus(config: Config, facts: Facts) -> Iterator[Finding]:
    wanted = [one.name for one in config.instances if one.launched and KINDS[one.spec.kind].uses_gpu]
    if facts.gpus:
        shown = ", ".join(f"{number}: {gib(size)}" for number, size in sorted(facts.gpus.items()))
        yield Finding(Level.OK, "GPUs", shown)
    elif wanted:
        what = f"no driver answers, and {', '.join(wanted)} may need one"
        yield Finding(Level.WARNING, "GPUs", what, "see nvidia-smi; vLLM for CPUs needs none")
    for one in config.instances:
        absent = [number for number in one.spec.gpus if facts.gpus and number not in facts.gpus]
        if absent:
            what = f"gpus: {', '.join(map(str, absent))} is not in this machine"
            yield Finding(Level.PROBLEM, one.name, what, "see nvidia-smi -L")


def _sleep(instance: Instance) -> Iterator[Finding]:
    spec, sleep = instance.spec, instance.sleep
    wanted = sleep.auto_sleep_enabled or instance.start == "asleep"
    if not wanted:
        return
    kind, known = KINDS[spec.kind], not (spec.remote or spec.command)
    able = kind.capabilities(spec)
    if not able.sleep:
        if known:
            what = f"is to sleep, and an engine of kind {spec.kind!r} has no way to"
            yield Finding(Level.WARNING, instance.name, what, "turn auto_sleep_enabled off, or start: asleep")
    elif known and (obstacle := kind.sleep_obstacle(spec.args, spec.env, spec.sleep_flags)):
        yield Finding(Level.PROBLEM, instance.name, f"cannot sleep: {obstacle}", "leave sleep_flags at true")
    elif len(able.levels) == 1:
        yield Finding(Level.OK, instance.name, f"{ALONE[able.levels[0]]}, as it is started")


def _machine(config: Config, facts: Facts) -> Iterator[Finding]:
    if facts.log_space < LOG_SPACE:
        what = f"{gib(facts.log_space)} left for logs in {config.log_dir}"
        yield Finding(Level.WARNING, "disk", what, "make room, or set launch.log_dir")
    else:
        yield Finding(Level.OK, "disk", f"{gib(facts.log_space)} left for logs")
    if facts.files < FILES:
        what = f"{facts.files} files may be open at once: each request needs two"
        yield Finding(Level.WARNING, "open files", what, "raise the hard limit: ulimit -Hn, or LimitNOFILE= in systemd")
    else:
        yield Finding(Level.OK, "open files", f"{facts.files} at once")


def _leftovers(facts: Facts) -> Iterator[Finding]:
    for orphan in facts.orphans:
        yield Finding(Level.WARNING, "orphan", orphan, f"--stop {orphan.partition(':')[0]} ends it")
    for name in facts.strays:
        yield Finding(Level.WARNING, "session", f"{name} is not in the YAML any more", f"--stop {name} ends it")

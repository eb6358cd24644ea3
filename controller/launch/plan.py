"""What to do about each unit, and what must wait for what. Pure: values in, values out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import Enum

from controller.config.model import Instance
from controller.fleet.keeper import Rest
from controller.fleet.state import Hold
from controller.launch.tmux import Pane
from controller.launch.unit import YAML_DIGEST, Start, Unit
from runtime.engines.kinds import KINDS
from state.desired_states import DesiredState, Wanted
from state.launches import Launch

ANY_GPU = "any"
"""An engine that is given no GPU in particular may take memory on each of them."""


class Step(Enum):
    KEEP = "keep"  # it runs and is healthy
    WAIT = "wait"  # it runs and is not ready yet
    START = "start"
    LEAVE = "leave"  # healthy, but not in a session of ours
    REST = "rest"  # it is started when a request wants it
    REFUSE = "refuse"


@dataclass(frozen=True, slots=True)
class Seen:
    """What was found of a unit.

    ``serving``: its address answers, and as this very engine. ``ours``: the process that was started for it runs.
    """

    pane: Pane | None = None
    strange: Pane | None = None
    healthy: bool | None = False
    serving: bool = False
    ours: bool = False
    record: Launch | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    step: Step
    reason: str = ""
    differences: tuple[str, ...] = ()


def find(unit: Unit, panes: Sequence[Pane]) -> tuple[Pane | None, Pane | None]:
    """The unit's own pane, and one of a stranger that has its session's name."""
    session = [pane for pane in panes if pane.session == unit.session]
    ours = [pane for pane in session if (pane.config, pane.unit) == (unit.config, unit.name)]
    if ours:
        return ours[0], None
    strangers = sorted(session, key=lambda pane: not pane.config)
    return None, strangers[0] if strangers else None


def decide(unit: Unit, seen: Seen, *, asked: bool = True) -> Decision:
    """``asked``: for this very one, not for all there are."""
    decision = _decide(unit, seen)
    if decision.step is Step.START and not asked and unit.instance is not None and unit.instance.start == "stopped":
        return Decision(Step.REST, "its first request starts it")
    return decision


def _decide(unit: Unit, seen: Seen) -> Decision:
    pane = seen.pane
    if pane is not None and not pane.dead:
        step = Step.KEEP if seen.healthy else Step.WAIT
        return Decision(step, "runs already", differences(unit, seen.record))
    if seen.serving and seen.ours:
        return Decision(Step.KEEP, "runs already, though its tmux session is gone", differences(unit, seen.record))
    if seen.serving:
        return Decision(Step.LEAVE, "runs already, but not in a tmux session of this configuration: left alone")
    if seen.strange is not None:
        return Decision(Step.REFUSE, _taken(unit, seen.strange))
    if pane is not None:
        return Decision(Step.START, f"had died ({pane.status or 'how is not known'})")
    if seen.record is not None:
        return Decision(Step.START, "its session was gone")
    return Decision(Step.START)


def rest(instance: Instance, record: Launch | None, desired: DesiredState | None) -> Rest | None:
    """Why nothing of it runs, if that is as it should be. ``record``: of its last start, unless it was ended."""
    if desired is not None and desired.wanted is Wanted.STOPPED:
        return Rest(f"stopped by {desired.by}", Hold.BY_HAND)
    if record is not None:
        return None  # it has ended by itself
    if desired is None and instance.start != "stopped":
        return None  # nobody has asked for it yet
    return Rest("stopped until it is asked for")


def differences(unit: Unit, record: Launch | None) -> tuple[str, ...]:
    """How a running unit differs from the YAML; of variables the names only."""
    return changes((record.argv, record.environment), unit.record) if record is not None else ()


def changes(runs: Start, wanted: Start) -> tuple[str, ...]:
    """The same of two starts as they are kept."""
    (old_argv, old), (argv, variables) = runs, wanted
    found = []
    if argv != old_argv:
        found.append(f"arguments: {_changed_words(old_argv, argv)}")
    names = sorted(name for name in {*variables, *old} if variables.get(name) != old.get(name))
    if YAML_DIGEST in names:
        names.remove(YAML_DIGEST)
        found.append("the YAML file has changed since it was started")
    if names:
        found.append(f"variables: {', '.join(names)}")
    return tuple(found)


def order(units: Sequence[Unit], loading: Collection[str] = ()) -> tuple[Unit, ...]:
    """The order in which they are seen to.

    The frontend; those that are ``loading`` already; those to sleep, for they need the room only now; the others.
    """

    def rank(unit: Unit) -> int:
        if unit.instance is None:
            return 0
        if unit.name in loading:
            return 1
        return 2 if unit.instance.start == "asleep" else 3

    return tuple(sorted(units, key=rank))


def before(unit: Unit, units: Sequence[Unit]) -> tuple[str, ...]:
    """Whom ``unit`` must wait for: those before it in ``units`` that may load onto the same GPU."""
    names = []
    for other in units:
        if other.name == unit.name:
            break
        if share_a_gpu(unit, other):
            names.append(other.name)
    return tuple(names)


def share_a_gpu(unit: Unit, other: Unit) -> bool:
    """Whether the two may load onto the same one."""
    mine, theirs = devices(unit), devices(other)
    return bool(mine and theirs and (mine & theirs or ANY_GPU in mine | theirs))


def devices(unit: Unit) -> frozenset[str]:
    """The GPUs it loads onto.

    ``gpus``, else where its memory is said to be, else its CUDA_VISIBLE_DEVICES, else any, unless its kind uses none.
    """
    if unit.instance is None:
        return frozenset()
    spec = unit.instance.spec
    if spec.gpus:
        return frozenset(map(str, spec.gpus))
    if unit.instance.footprint is not None:
        return frozenset(place.removeprefix("gpu") for place in unit.instance.footprint.awake)
    visible = unit.declared.get("CUDA_VISIBLE_DEVICES", unit.environment.get("CUDA_VISIBLE_DEVICES"))
    if not KINDS[spec.kind].uses_gpu:
        return frozenset()
    if visible is None:
        return frozenset({ANY_GPU})
    return frozenset(device.strip() for device in visible.split(",") if device.strip() not in ("", "-1"))


def _taken(unit: Unit, pane: Pane) -> str:
    whose = f"belongs to {pane.config}" if pane.config else "was not made by this launcher"
    return f"the tmux session {unit.session} {whose}; end it first: tmux kill-session -t '={unit.session}'"


def _changed_words(old: Sequence[str], new: Sequence[str]) -> str:
    gone, added = Counter(old) - Counter(new), Counter(new) - Counter(old)
    if not gone and not added:
        return "in another order"
    was = f"runs with {' '.join(gone.elements())}" if gone else "runs without"
    if not added:
        return f"{was}, which the YAML no longer has"
    return f"{was}, the YAML has {' '.join(added.elements())}" if gone else f"{was} {' '.join(added.elements())}"

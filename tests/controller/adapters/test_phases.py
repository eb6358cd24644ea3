"""The way of an adapter through its phases, and what is said on it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.adapters import phases
from controller.adapters.phases import NEXT, Condition, Phase, path, with_condition

LIVING = st.sampled_from([phase for phase in Phase if phase is not Phase.DELETING])


@given(LIVING, st.sampled_from(Phase))
def test_every_phase_leads_to_every_other_by_known_arrows(before: Phase, wanted: Phase) -> None:
    """Only from Deleting nothing leads away."""
    way = path(before, wanted)
    assert (way[-1:] or (before,)) == (wanted,)
    for one, then in zip((before, *way), way, strict=False):
        assert then in NEXT[one]


@pytest.mark.parametrize("wanted", [phase for phase in Phase if phase is not Phase.DELETING])
def test_what_is_being_deleted_stays_so(wanted: Phase) -> None:
    """There is no way back."""
    with pytest.raises(ValueError, match="deleted"):
        path(Phase.DELETING, wanted)


def test_the_documented_way() -> None:
    """Pending → Scheduled → Loading → Bound → Running, none left out."""
    assert [Phase.PENDING, *path(Phase.PENDING, Phase.RUNNING)] == [
        Phase.PENDING,
        Phase.SCHEDULED,
        Phase.LOADING,
        Phase.BOUND,
        Phase.RUNNING,
    ]
    assert path(Phase.RUNNING, Phase.LOADING) == (Phase.SCHEDULED, Phase.LOADING)


def test_a_condition_keeps_its_time_while_its_status_lasts() -> None:
    """One of each type: a new message alone is no transition."""
    first = with_condition((), phases.scheduled("lora", ["a"]), 1.0)
    again = with_condition(first, phases.scheduled("lora", ["a", "b"]), 2.0)
    lost = with_condition(again, phases.rescheduling(), 3.0)
    assert [(one.status, one.since) for one in (*first, *again, *lost)] == [
        ("True", 1.0),
        ("True", 1.0),
        ("False", 3.0),
    ]
    assert again[0].message == "ModelAdapter default/lora has selected 2 pods for scheduling: [a b]"


TABLE = [
    (phases.starting(), "Initialized", "Unknown", "ModelAdapterPending", "Starting reconciliation"),
    (
        phases.scheduled("q", ["p"]),
        "Scheduled",
        "True",
        "Scheduled",
        "ModelAdapter default/q has selected 1 pods for scheduling: [p]",
    ),
    (phases.rescheduling(), "Scheduled", "False", "Rescheduling", "Need to reschedule adapter on available pods"),
    (phases.rescheduled("p"), "Scheduled", "True", "Rescheduled", "Adapter successfully loaded on new pod p"),
    (phases.scaled("q", 2), "Scheduled", "True", "Scaled", "ModelAdapter default/q scaled to 2 replicas"),
    (phases.migrating(), "Ready", "False", "AdapterMigrating", "Adapter pod removed, migrating to new pod"),
    (
        phases.loading_failed({"p": "no", "r": "never"}),
        "Ready",
        "False",
        "ModelAdapterLoadingError",
        "Loading failed on all pods: pod p: no; pod r: never",
    ),
    (phases.ready("q"), "Ready", "True", "ModelAdapterAvailable", "ModelAdapter default/q is ready"),
    (phases.not_bound("q"), "Bound", "False", "ModelAdapterLoadingError", "ModelAdapter default/q loading failed"),
]


@pytest.mark.parametrize(("condition", "kind", "status", "reason", "message"), TABLE, ids=[row[3] for row in TABLE])
def test_conditions_say_what_modeladapters_say(
    condition: Condition, kind: str, status: str, reason: str, message: str
) -> None:
    """Type, status, reason and message of the original's documents."""
    assert (condition.type, condition.status, condition.reason, condition.message) == (kind, status, reason, message)

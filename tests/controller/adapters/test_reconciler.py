"""One adapter on its way, in time that passes at once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from controller.adapters.phases import Phase
from controller.adapters.spec import AdapterSpec
from controller.fleet.state import State
from runtime.downloads.progress import Progress
from tests.controller.adapters.stage import LATER, NEVER, Stage

V1, V2 = "hf://org/v1", "hf://org/v2"


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    made = Stage(tmp_path)
    yield made
    made.close()


def has(stage: Stage, name: str = "sql") -> str:
    """The instances whose engines have it."""
    return "".join(instance for instance, engine in stage.engines.items() if name in engine.loaded)


def phase(stage: Stage, name: str = "sql") -> Phase:
    return stage.controller.get(name).phase


def test_instances_must_have_been_up_for_five_seconds(stage: Stage) -> None:
    """Then it goes through every phase."""
    stage.put("sql", V1)
    stage.run(4.5)
    assert (has(stage), phase(stage)) == ("", Phase.PENDING)
    stage.run(5)
    assert has(stage) == "abC"
    assert stage.phases("sql") == ["Pending", "Scheduled", "Loading", "Bound", "Running"]


def test_a_wake_does_not_start_the_five_seconds_again(stage: Stage) -> None:
    """An instance that sleeps is up."""
    stage.run(6)
    stage.asleep("a")
    stage.wake("a")
    stage.put("sql", V1)
    stage.run(2)
    assert "a" in has(stage)


def test_a_restart_does(stage: Stage) -> None:
    """Another process has to show first that it stays."""
    stage.run(6)
    stage.crash("a")
    stage.engines["a"].up = True
    stage.put("sql", V1)
    stage.run(3)
    assert has(stage) == "bC"
    stage.run(10)
    assert has(stage) == "abC"


def test_one_whose_instances_sleep_waits_for_a_request(stage: Stage) -> None:
    """It is fetched, and says what it waits for; the wake brings it."""
    stage.run(6)
    for name in stage.engines:
        stage.asleep(name)
    stage.put("sql", V1, replicas=1)
    stage.run(30)
    assert (has(stage), phase(stage), stage.artifacts.fetches) == ("", Phase.LOADING, 1)
    assert ready_condition(stage)[1] == "pod a is asleep: a request wakes it, and it gets the adapter"
    stage.wake("a")
    stage.run(3)
    assert (has(stage), ready_condition(stage)[0]) == ("a", "ModelAdapterAvailable")


def test_files_that_somebody_deleted_are_fetched_again(stage: Stage) -> None:
    """When an engine needs them; that is no fault of the engine's."""
    stage.run(6)
    stage.put("sql", V1)
    stage.run(3)
    stage.artifacts.whole.clear()
    for name in stage.engines:
        stage.crash(name)
        stage.engines[name].up = True
    stage.run(12)
    assert (has(stage), phase(stage), stage.artifacts.fetches) == ("abC", Phase.RUNNING, 2)
    assert "LoadingFailed" not in stage.reasons("sql")


def test_an_instance_that_goes_down_is_told_of(stage: Stage) -> None:
    """And that it has the adapter again."""
    stage.run(6)
    stage.put("sql", V1, replicas=1)
    stage.run(3)
    stage.crash("a")
    stage.engines["a"].up = True
    stage.run(10)
    assert stage.reasons("sql")[:4] == ["Scheduled", "Loaded", "AdapterLost", "AdapterMigrating"]
    assert phase(stage) is Phase.RUNNING


def test_retries_and_then_another_instance(stage: Stage) -> None:
    """The first try and five more, after 5, 10, 20, 40 and 80 seconds; the number of replicas is kept."""
    stage.run(6)
    stage.engines["a"].trouble = LATER
    stage.put("sql", V1, replicas=1)
    stage.run(1 + 5 + 10 + 20 + 40 + 78)
    assert (stage.engines["a"].loads, has(stage)) == (5, "")
    stage.run(10)
    assert (stage.engines["a"].loads, has(stage)) == (6, "b")
    assert stage.reasons("sql") == [
        "Scheduled",
        *["LoadingError"] * 5,
        "MaxRetriesExceeded",
        "Scheduled",
        "Loaded",
    ]
    assert phase(stage) is Phase.RUNNING


def test_what_no_repetition_mends_goes_to_another_at_once(stage: Stage) -> None:
    """And fails with the reason when there is no other."""
    stage.run(6)
    for engine in stage.engines.values():
        engine.trouble = NEVER
    stage.put("sql", V1, replicas=1)
    stage.run(3)
    assert phase(stage) is Phase.FAILED
    assert [engine.loads for engine in stage.engines.values()] == [1, 1, 1]
    (ready,) = [one for one in stage.controller.get("sql").conditions if one.type == "Ready"]
    assert (ready.status, ready.reason) == ("False", "ModelAdapterLoadingError")
    assert "pod a: a: load: answered 401: Unauthorized" in ready.message


def test_a_source_that_refuses_fails_at_once(stage: Stage) -> None:
    """No engine is bothered."""
    stage.run(6)
    stage.artifacts.trouble = NEVER
    stage.put("sql", V1)
    stage.run(3)
    assert phase(stage) is Phase.FAILED
    assert [engine.loads for engine in stage.engines.values()] == [0, 0, 0]


@pytest.mark.parametrize("mended_by", ["restart", "spec", "apply"])
def test_failed_is_not_for_ever(stage: Stage, mended_by: str) -> None:
    """An instance that restarts, a changed spec, or the same one applied again: each starts afresh."""
    stage.run(6)
    for engine in stage.engines.values():
        engine.trouble = NEVER
    stage.put("sql", V1)
    stage.run(3)
    assert phase(stage) is Phase.FAILED
    for engine in stage.engines.values():
        engine.trouble = None
    stage.run(300)
    assert phase(stage) is Phase.FAILED
    if mended_by == "restart":
        stage.crash("a")
        stage.engines["a"].up = True
    else:
        stage.put("sql", V1 if mended_by == "apply" else V2)
    stage.run(30)
    assert phase(stage) is Phase.RUNNING
    assert has(stage) == ("a" if mended_by == "restart" else "abC")


def test_a_lost_instance_is_replaced(stage: Stage) -> None:
    """By one that was not chosen before; the lost one is free when it comes back."""
    stage.run(6)
    stage.put("sql", V1, replicas=1)
    stage.run(3)
    assert has(stage) == "a"
    stage.crash("a")
    stage.run(3)
    assert has(stage) == "b"
    conditions = {one.type: one.reason for one in stage.controller.get("sql").conditions}
    assert (conditions["Scheduled"], conditions["Ready"]) == ("Rescheduled", "ModelAdapterAvailable")
    stage.engines["a"].up = True
    stage.run(20)
    assert has(stage) == "b"


def test_a_restarted_engine_has_it_before_it_is_ready(tmp_path: Path) -> None:
    """With nobody else to go to it waits for the one there is."""
    stage = Stage(tmp_path, "a")
    stage.run(6)
    stage.put("sql", V1)
    stage.run(3)
    stage.crash("a")
    stage.run(1)
    assert stage.instance("a").state is State.FAILED
    stage.engines["a"].up = True
    while stage.instance("a").state is not State.READY:
        stage.run(0.01)
    assert has(stage) == "a"
    stage.close()


def test_the_record_of_tries_outlives_the_gateway(stage: Stage) -> None:
    """A new gateway waits as long as the old one would have."""
    stage.run(6)
    stage.engines["a"].trouble = LATER
    stage.engines["b"].trouble = LATER
    stage.engines["C"].trouble = LATER
    stage.put("sql", V1, replicas=1)
    stage.run(1 + 5 + 10 + 20 + 1)
    assert stage.engines["a"].loads == 4
    stage.shut()
    stage.open()
    stage.run(30)
    assert stage.engines["a"].loads == 4
    stage.run(10)
    assert stage.engines["a"].loads == 5


def test_what_is_loaded_is_found_by_the_next_gateway(stage: Stage) -> None:
    """Nothing is loaded twice, and the route is there from the start."""
    stage.run(6)
    stage.put("sql", V1)
    stage.run(3)
    stage.shut()
    stage.open()
    route = stage.route("sql")
    assert route is not None and {one.name for one in route.instances} == set("abC")
    assert [engine.loads for engine in stage.engines.values()] == [1, 1, 1]


@pytest.mark.parametrize("source", [V1, "/models/sql"])
def test_deleted_while_it_sleeps(stage: Stage, source: str) -> None:
    """Nothing is told to an engine that sleeps; what it still has goes when it wakes, before it is ready."""
    stage.run(6)
    stage.put("sql", source)
    stage.run(3)
    stage.asleep("a")
    stage.wait_for(stage.controller.delete("sql"))
    stage.run(3)
    assert "sql" not in stage.controller.records and stage.route("sql") is None
    assert has(stage) == "a"
    stage.wake("a")
    assert has(stage) == ""
    assert stage.artifacts.whole <= {"/models/sql"} and stage.store.told == {}
    assert [engine.faults for engine in stage.engines.values()] == [[], [], []]


def test_in_flight_requests_finish_before_it_is_unloaded(stage: Stage) -> None:
    """Deleted or replaced: on an engine that must unload first, too."""
    stage.run(6)
    stage.put("sql", V1)
    stage.run(3)
    route = stage.route("sql")
    assert route is not None
    busy = stage.instance("C")
    busy.begin()
    route.began(busy)
    stage.put("sql", V2)
    stage.run(60)
    assert stage.engines["C"].loaded == {"sql": stage.path("sql", V1)}
    assert busy not in route.instances
    route.ended(busy)
    busy.end()
    stage.run(3)
    assert {engine.loaded["sql"] for engine in stage.engines.values()} == {stage.path("sql", V2)}
    assert stage.artifacts.whole == {stage.path("sql", V2)}


def test_an_unload_that_fails_is_tried_again(stage: Stage) -> None:
    """And given up in the end: what is deleted does not stay for ever."""
    stage.run(6)
    stage.put("sql", V1)
    stage.run(3)
    stage.wait_for(stage.controller.delete("sql"))
    stage.run(200)
    assert stage.controller.records == {}


def test_all_instances_gone(stage: Stage) -> None:
    """It does not run with nobody to run it; it does again as soon as one is back, before that one is ready."""
    stage.run(6)
    stage.put("sql", V1)
    stage.run(3)
    for name in "abC":
        stage.crash(name)
    stage.run(3)
    record = stage.controller.get("sql")
    assert (record.phase, record.loaded) == (Phase.SCHEDULED, [])
    (ready,) = [one for one in record.conditions if one.type == "Ready"]
    assert (ready.status, ready.reason) == ("False", "AdapterMigrating")
    stage.engines["b"].up = True
    stage.run(4)
    assert (record.phase, record.loaded) == (Phase.RUNNING, ["b"])


def test_a_failed_reload_takes_the_instance_out(stage: Stage) -> None:
    """One that woke without it gets none of its requests, and is tried again later."""
    stage.run(6)
    stage.put("sql", V1)
    stage.run(3)
    stage.asleep("a")
    stage.engines["a"].trouble = LATER
    stage.wake("a")
    route = stage.route("sql")
    assert route is not None and {one.name for one in route.instances} == {"b", "C"}
    assert stage.instance("a").state is State.READY
    stage.engines["a"].trouble = None
    stage.run(6)
    assert {one.name for one in route.instances} == set("abC")


def test_replicas_grow_and_shrink(stage: Stage) -> None:
    """Nothing is loaded anew that is there already."""
    stage.run(6)
    stage.put("sql", V1, replicas=1)
    stage.run(3)
    stage.put("sql", V1, replicas=3)
    stage.run(3)
    assert has(stage) == "abC"
    stage.put("sql", V1, replicas=2)
    stage.run(3)
    assert len(has(stage)) == 2
    assert sum(engine.loads for engine in stage.engines.values()) == 3
    (scheduled,) = [one for one in stage.controller.get("sql").conditions if one.type == "Scheduled"]
    assert (scheduled.reason, scheduled.message) == ("Scaled", "ModelAdapter default/sql scaled to 2 replicas")


def test_least_adapters_spreads_them(stage: Stage) -> None:
    """Three adapters of one replica each go to three instances."""
    stage.run(6)
    for name in ("x", "y", "z"):
        stage.put(name, V1, replicas=1)
        stage.run(3)
    assert [len(engine.loaded) for engine in stage.engines.values()] == [1, 1, 1]


def test_what_is_fetched_is_called_off_by_another_wish(stage: Stage) -> None:
    """Only the last one is ever loaded."""
    stage.run(6)
    stage.put("sql", V1)
    stage.run(0.3)
    stage.put("sql", V2)
    stage.run(3)
    assert {engine.loaded["sql"] for engine in stage.engines.values()} == {stage.path("sql", V2)}
    assert stage.path("sql", V1) not in stage.artifacts.whole


@pytest.mark.parametrize("trouble", [None, LATER, NEVER])
@pytest.mark.parametrize("of", ["the source", "the engine"])
@pytest.mark.parametrize(("stay", "renewed"), [("b", ""), ("ab", "a")])
def test_an_instance_may_leave_at_any_moment(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, stay: str, renewed: str, of: str, trouble: str | None
) -> None:
    """Whatever is under way for it: another takes its place, or it is told why none can."""
    for hundredths in range(0, 100, 2):
        stage = Stage(tmp_path, "ab")
        stage.run(6)
        if of == "the source":
            stage.artifacts.trouble = trouble
        else:
            stage.engines["a"].trouble = trouble
        stage.put("sql", V1, replicas=1)
        stage.run(hundredths / 100)
        stage.reload(stay, renewed)
        if of == "the source" and trouble == NEVER:
            stage.run(3)
            assert (phase(stage), stage.artifacts.fetches) == (Phase.FAILED, 1)
        else:
            stage.artifacts.trouble = stage.engines["a"].trouble = None
            stage.run(10)
            (there,) = stage.controller.get("sql").loaded
            assert phase(stage) is Phase.RUNNING
            assert there in stay and there in has(stage)
        stage.close()
    assert "broke" not in caplog.text


@pytest.mark.parametrize("again", ["applied", "by the clock"])
def test_a_source_that_holds_something_else_takes_the_old_ones_place(tmp_path: Path, again: str) -> None:
    """Under a path of its own, on one instance after the other, and it goes on being served meanwhile."""
    top = "" if again == "applied" else "adapter_store: {refresh_seconds: 60}\n"
    stage = Stage(tmp_path, top=top)
    stage.run(6)
    stage.put("sql", V1)
    stage.run(3)
    old = stage.path("sql", V1)
    stage.artifacts.edition = "-2"
    if again == "applied":
        stage.run(300)
        assert {engine.loaded["sql"] for engine in stage.engines.values()} == {old}
        stage.put("sql", V1)
        stage.run(5)
    else:
        stage.run(70)
    assert {engine.loaded["sql"] for engine in stage.engines.values()} == {old + "-2"}
    assert stage.artifacts.whole == {old + "-2"}
    assert "ArtifactChanged" in stage.reasons("sql")
    assert phase(stage) is Phase.RUNNING
    assert stage.phases("sql").count("Pending") == 1
    stage.close()


@pytest.mark.parametrize("trouble", [LATER, NEVER])
def test_a_source_that_cannot_be_looked_at_again_changes_nothing(stage: Stage, trouble: str) -> None:
    """What is there goes on: it counts as no try, and is asked once."""
    stage.run(6)
    stage.put("sql", V1)
    stage.run(3)
    stage.artifacts.trouble = trouble
    stage.put("sql", V1)
    stage.run(120)
    assert (has(stage), phase(stage), stage.artifacts.fetches) == ("abC", Phase.RUNNING, 2)
    assert stage.reasons("sql")[-1] == "SourceNotRead"
    assert all(place.tries.failures == 0 for place in stage.controller.get("sql").places.values())


def test_a_source_that_stays_away_is_told_of_once(tmp_path: Path) -> None:
    """However often it is looked for; and again when it was there meanwhile."""
    stage = Stage(tmp_path, top="adapter_store: {refresh_seconds: 60}\n")
    stage.run(6)
    stage.put("sql", V1)
    stage.run(3)
    for trouble in (LATER, None, LATER):
        stage.artifacts.trouble = trouble
        stage.run(400)
    assert stage.reasons("sql").count("SourceNotRead") == 2
    assert stage.artifacts.fetches > 12
    stage.close()


def test_what_failed_is_fetched_anew_when_it_is_applied_again(stage: Stage) -> None:
    """Engines refused what the source held; now it holds something else."""
    stage.run(6)
    for engine in stage.engines.values():
        engine.trouble = NEVER
    stage.put("sql", V1, replicas=1)
    stage.run(3)
    assert phase(stage) is Phase.FAILED
    for engine in stage.engines.values():
        engine.trouble = None
    stage.artifacts.edition = "-2"
    loads = sum(engine.loads for engine in stage.engines.values())
    stage.put("sql", V1, replicas=1)
    stage.run(3)
    assert sum(engine.loads for engine in stage.engines.values()) == loads + 1
    assert [engine.loaded for engine in stage.engines.values() if engine.loaded] == [
        {"sql": stage.path("sql", V1) + "-2"}
    ]


def test_while_it_is_fetched_its_progress_is_told(stage: Stage) -> None:
    """And not after."""
    stage.run(6)
    stage.put("sql", V1)
    stage.run(0.3)
    assert stage.controller.get("sql").progress == Progress(5, 10, 0, 1)
    stage.run(3)
    assert stage.controller.get("sql").progress is None


def ready_condition(stage: Stage) -> tuple[str, str]:
    (found,) = [one for one in stage.controller.get("sql").conditions if one.type == "Ready"]
    return found.reason, found.message


def test_who_waits_for_an_instance_is_told_why(stage: Stage) -> None:
    """Nothing has its labels; nothing is up."""
    stage.run(6)
    spec = {"baseModel": "base", "artifactURL": V1, "podSelector": {"matchLabels": {"tier": "z"}}}
    stage.wait_for(stage.controller.put("sql", AdapterSpec.model_validate(spec)))
    stage.run(1)
    assert phase(stage) is Phase.PENDING
    assert ready_condition(stage) == (
        "ModelAdapterUnavailable",
        "no pod of base takes adapters and has the labels tier=z",
    )
    for name in stage.engines:
        stage.crash(name)
    stage.put("sql", V1)
    stage.run(1)
    assert ready_condition(stage)[1] == "no pod is up: a is failed, b is failed, C is failed"
    for engine in stage.engines.values():
        engine.up = True
    stage.run(12)
    assert ready_condition(stage)[0] == "ModelAdapterAvailable"

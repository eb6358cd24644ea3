"""The gateway's Prometheus page, read by Prometheus' own parser, against what /traffic/stats says."""

from __future__ import annotations

from pathlib import Path

import pytest
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from tests.router.gateway import Spec, whole

pytestmark = pytest.mark.anyio

ODD = 'a "quoted"\\name/é'


def samples(families: list[Metric], name: str, **labels: str) -> float:
    """The sum of the samples of this name that carry these labels."""
    return sum(
        sample.value
        for family in families
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )


async def test_numbers_equal_those_of_the_statistics(tmp_path: Path) -> None:
    """Outcomes, statuses, tokens, gauges and histograms; labels are names from the YAML only."""
    async with whole(tmp_path, Spec("one"), Spec("two", yaml={"aliases": [ODD]})) as gateway:
        for _ in range(3):
            await gateway.complete("one")
        await gateway.complete("one", max_tokens=-1)
        await gateway.complete("one", stream=True)
        await gateway.complete(ODD)
        await gateway.complete("nobody")
        await gateway.put_to_sleep("two")
        await gateway.complete("two")
        page = await gateway.client.get("/metrics")
        stats = (await gateway.client.get("/traffic/stats")).json()["traffic_stats"]
        assert page.headers["content-type"].startswith("text/plain; version=0.0.4")
        families = list(text_string_to_metric_families(page.text))
        assert len({family.name for family in families}) == len(families)
        for model, said in stats.items():
            counted = {
                outcome: samples(families, "torpor_requests_total", model=model, outcome=outcome)
                for outcome in ("successful", "failed", "cancelled")
            }
            assert counted == {outcome: said[f"{outcome}_requests"] for outcome in counted}
            for status, count in said["status_classes"].items():
                assert samples(families, "torpor_responses_total", model=model, status=status) == count
            for kind in ("prompt", "completion"):
                assert samples(families, "torpor_tokens_total", model=model, kind=kind) == said[f"{kind}_tokens"] > 0
            for gauge in ("in_flight", "waiting"):
                assert samples(families, f"torpor_requests_{gauge}", model=model) == 0
            duration = "torpor_request_duration_seconds"
            assert samples(families, f"{duration}_count", model=model) == said["total_requests"]
            assert samples(families, f"{duration}_bucket", model=model, le="+Inf") == said["total_requests"]
            assert samples(families, f"{duration}_bucket", model=model, le="1e+04") == said["total_requests"]
        assert samples(families, "torpor_time_to_first_token_seconds_count", model="one") == 1
        assert samples(families, "torpor_wait_seconds_count", model="two") == 1
        assert samples(families, "torpor_instance_state", instance="one") == 1
        assert samples(families, "torpor_instance_state", instance="one", state="ready") == 1
        assert samples(families, "torpor_sleeps_total", instance="two", cause="manual") == 1
        assert samples(families, "torpor_wakes_total", instance="two") == 1
        assert samples(families, "process_open_fds") > 0
        assert "nobody" not in page.text


async def test_every_metric_of_the_page_is_documented(tmp_path: Path) -> None:
    """docs/traffic.md names each, with its labels."""
    documented = (Path(__file__).parents[3] / "docs" / "traffic.md").read_text(encoding="utf-8")
    async with whole(tmp_path, Spec("one")) as gateway:
        await gateway.complete("one")
        await gateway.put_to_sleep("one")
        await gateway.complete("one")
        page = (await gateway.client.get("/metrics")).text
    for family in text_string_to_metric_families(page):
        if not family.name.startswith("torpor_"):
            continue
        name = f"{family.name}_total" if family.type == "counter" else family.name
        line = next((line for line in documented.splitlines() if f"`{name}`" in line), None)
        assert line, name
        labels = {label for sample in family.samples for label in sample.labels} - {"le"}
        assert all(f"`{label}`" in line for label in labels), name

"""Walk through the models of a gateway, one request after the other and some at once, and print what happened.

python benchmarks/walk.py --url http://127.0.0.1:8090 --rounds 3
"""

from __future__ import annotations

import argparse
import asyncio
import random
import time
from collections.abc import Sequence
from typing import Any

import httpx2
from rich.console import Console
from rich.table import Table

SHOWN = {
    "evicted": "{instance} is told to leave for {cause}",
    "slept": "{instance} sleeps at level {level} ({cause})",
    "wake_began": "{instance} begins to wake ({cause})",
    "woken": "{instance} is awake",
    "waits": "{model} waits: {detail}",
    "refused": "{model} can never fit: {detail}",
}
"""How each event reads; others are not shown."""


def options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="http://127.0.0.1:8090", help="address of the gateway")
    parser.add_argument("--rounds", type=int, default=3, help="times that every model is asked")
    parser.add_argument("--seed", type=int, default=1, help="of the order")
    return parser.parse_args(arguments)


async def walk(url: str, rounds: int, seed: int, console: Console) -> int:
    """Returns how many requests failed."""
    chance = random.Random(seed)
    async with httpx2.AsyncClient(base_url=url, timeout=120, trust_env=False) as client:
        models = list((await client.get("/models")).raise_for_status().json()["models"])
        began = (await client.get("/events?limit=1")).json()["last"]
        waits: dict[str, list[float]] = {model: [] for model in models}
        failed = 0
        for _ in range(rounds):
            chance.shuffle(models)
            for model in models:
                failed += not await ask(client, model, waits[model])
        outcomes = await asyncio.gather(*(ask(client, model, waits[model]) for model in models * 4))
        failed += outcomes.count(False)
        await tell(client, began, waits, console)
    return failed


async def ask(client: httpx2.AsyncClient, model: str, waits: list[float]) -> bool:
    began = time.monotonic()
    body = {"model": model, "max_tokens": 4, "messages": [{"role": "user", "content": "Hello"}]}
    answer = await client.post("/v1/chat/completions", json=body)
    waits.append(time.monotonic() - began)
    return answer.status_code == 200


async def tell(client: httpx2.AsyncClient, began: int, waits: dict[str, list[float]], console: Console) -> None:
    events: list[dict[str, Any]] = (await client.get(f"/events?after={began}&limit=1000")).json()["events"]
    for event in events:
        if event["what"] in SHOWN:
            took = f" in {event['seconds']:.1f} s" if event["seconds"] is not None else ""
            stamp = time.strftime("%H:%M:%S", time.localtime(event["time"]))
            console.print(f"{stamp}  {SHOWN[event['what']].format(**event)}{took}", highlight=False)
    table = Table("model", "requests", "shortest", "longest", title="From request to answer, in seconds")
    for model, seconds in sorted(waits.items()):
        table.add_row(model, str(len(seconds)), f"{min(seconds):.2f}", f"{max(seconds):.2f}")
    console.print(table)
    residency = (await client.get("/residency")).json()
    for place, amounts in residency["places"].items():
        console.print(f"{place}: {amounts['used'] / 2**30:g} of {amounts['capacity'] / 2**30:g} GiB held")


def main() -> int:
    chosen = options()
    failed = asyncio.run(walk(chosen.url.rstrip("/"), chosen.rounds, chosen.seed, Console()))
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())

"""``python -m runtime fetch SOURCE TARGET``: a download by hand, with a bar on a terminal."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from rich.progress import Progress as Bar

from runtime.downloads.credentials import Credentials, credentials_of
from runtime.downloads.errors import CredentialsInvalid, DownloadError
from runtime.downloads.fetch import Artifact, Progress, corruption, fetch
from runtime.settings import read

OK, FAILED, MISTAKEN, INTERRUPTED = 0, 1, 2, 130


def main(argv: Sequence[str]) -> int:
    """Exit code 0 when the target is whole, 1 when it is not, 2 for mistakes in the call."""
    options = _parser().parse_args(argv)
    console = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
    try:
        credentials = credentials_of(_config(options.config), read())
        artifact = asyncio.run(_fetch(options, credentials, console))
        if options.check and (found := asyncio.run(corruption(artifact.path))):
            console.print(f"damaged: {artifact.path}: {found}")
            return FAILED
    except CredentialsInvalid as mistaken:
        console.print(str(mistaken))
        return MISTAKEN
    except DownloadError as failed:
        console.print(f"{type(failed).__name__}: {failed}" + (" (may be tried again)" if failed.retriable else ""))
        return FAILED
    except KeyboardInterrupt:
        console.print("interrupted; the same command goes on from here")
        return INTERRUPTED
    sys.stdout.write(f"{artifact.path}\n")
    console.print(f"{artifact.source} at {artifact.revision}: {artifact.files} files, {artifact.bytes} bytes")
    return OK


async def _fetch(options: argparse.Namespace, credentials: Credentials, console: Console) -> Artifact:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Bar(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("looking", total=None)

        def show(progress: Progress) -> None:
            files = f"{progress.done_files}/{progress.total_files or '?'} files"
            bar.update(task, description=files, completed=progress.done_bytes, total=progress.total_bytes)

        return await fetch(
            options.source,
            options.target,
            credentials,
            max_workers=options.max_workers,
            on_progress=show,
            keep_part=True,
        )


def _config(text: str) -> dict[str, object]:
    try:
        config = json.loads(text)
    except ValueError:
        config = None
    if not isinstance(config, dict):
        raise CredentialsInvalid("--config must be a JSON object")
    return config


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m runtime fetch", description=__doc__)
    parser.add_argument("source", metavar="SOURCE", help="hf://org/name[@revision], s3://bucket/prefix/, https://…")
    parser.add_argument("target", metavar="TARGET", type=Path, help="the folder it becomes")
    parser.add_argument("-w", "--max-workers", type=int, default=8, metavar="N", help="files at a time (8)")
    parser.add_argument("-c", "--config", default="{}", metavar="JSON", help="keys, endpoints, headers")
    parser.add_argument("--check", action="store_true", help="afterwards read every byte and compare the checksums")
    return parser

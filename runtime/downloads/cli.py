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
from runtime.downloads.errors import CredentialsInvalid, DownloadError, SourceInvalid
from runtime.downloads.fetch import Artifact, Progress, corruption, fetch
from runtime.settings import read

OK, FAILED, MISTAKEN, INTERRUPTED = 0, 1, 2, 130
EPILOG = "Who may list processes can read keys given as JSON: -c @FILE or the environment keeps them in."


def main(argv: Sequence[str]) -> int:
    """Exit code 0 when the target is whole, 1 when it is not, 2 for mistakes in the call."""
    options = _options(argv)
    console = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
    try:
        credentials = credentials_of(_config(options.config), read())
        artifact = asyncio.run(_fetch(options, credentials, console))
        if options.check and (found := asyncio.run(corruption(artifact.path))):
            console.print(f"damaged: {artifact.path}: {found}")
            return FAILED
    except (CredentialsInvalid, SourceInvalid) as mistaken:
        console.print(str(mistaken))
        return MISTAKEN
    except DownloadError as failed:
        console.print(f"{failed} ({type(failed).__name__}" + (", may be tried again)" if failed.retriable else ")"))
        return FAILED
    except KeyboardInterrupt:
        console.print("interrupted; the same command goes on from here")
        return INTERRUPTED
    console.print(f"{artifact.source} at {artifact.revision}: {artifact.files} files, {artifact.bytes} bytes")
    sys.stdout.write(f"{artifact.path}\n")
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
            options.target.expanduser(),
            credentials,
            max_workers=options.max_workers,
            on_progress=show,
            keep_part=True,
        )


def _config(text: str) -> dict[str, object]:
    try:
        config = json.loads(Path(text[1:]).read_text(encoding="utf-8") if text.startswith("@") else text)
    except OSError as error:
        raise CredentialsInvalid(f"--config: {text[1:]}: {error.strerror}") from None
    except ValueError:
        config = None
    if not isinstance(config, dict):
        raise CredentialsInvalid("--config must be a JSON object")
    return config


def _options(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m runtime fetch", description=__doc__, epilog=EPILOG)
    parser.add_argument("source", metavar="SOURCE", nargs="?", help="hf://org/name[@revision], s3://bucket/prefix/, …")
    parser.add_argument("target", metavar="TARGET", nargs="?", type=Path, help="the folder it becomes")
    parser.add_argument("-s", "--source", dest="source_option", metavar="SOURCE", help="the same, as an option")
    parser.add_argument("-o", "--output-dir", dest="target_option", metavar="TARGET", type=Path, help="the same")
    parser.add_argument("-w", "--max-workers", type=int, default=8, metavar="N", help="files at a time (8)")
    parser.add_argument("-c", "--config", default="{}", metavar="JSON|@FILE", help="keys, endpoints, headers")
    parser.add_argument("--check", action="store_true", help="afterwards read every byte and compare the checksums")
    options = parser.parse_args(argv)
    options.source = options.source_option or options.source
    options.target = options.target_option or options.target
    if options.source is None or options.target is None:
        parser.error("SOURCE and TARGET are needed")
    return options

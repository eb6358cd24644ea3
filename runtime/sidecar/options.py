"""The sidecar's command line and environment: pure, from words to one frozen value."""

from __future__ import annotations

import argparse
import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from runtime.address import port_number
from runtime.engines.kinds import KINDS, SIDECAR_SYNONYMS
from runtime.engines.spec import EngineSpec
from runtime.metrics.names import VOCABULARIES, Vocabulary

ENGINE_KEYS = ("ENGINE_API_KEY", "VLLM_API_KEY")
ADAPTERS = Path("/tmp/aibrix/adapters")  # AIBrix's: engines beside it have the volume mounted there
MODELS = Path("/tmp/aibrix/models")
SECRETS = Path("/var/run/secrets/aibrix")
LONGEST_TIMEOUT = 86_400.0


class Mistake(Exception):
    """The sidecar cannot start so; the message says what to change."""


@dataclass(frozen=True, slots=True)
class Options:
    """``adapter_dir``, ``model_dir``: where downloads go that name no folder. ``transform`` False: metrics stay raw.

    ``secrets_dir``: one folder for each named set of credentials, one file for each of its keys.
    """

    engine: EngineSpec
    host: str = "0.0.0.0"
    port: int = 9000
    pod: str = ""
    roots: tuple[Path, ...] = ()
    vocabulary: Vocabulary = VOCABULARIES["torpor"]
    transform: bool = True
    keep_originals: bool = True
    max_lora_rank: int | None = None
    request_timeout: float = 30.0
    adapter_dir: Path = ADAPTERS
    model_dir: Path = MODELS
    secrets_dir: Path = SECRETS
    max_workers: int = 8
    log_level: str = "info"
    access_log: bool = False


def supported() -> tuple[str, ...]:
    """The engine kinds whose metrics and adapters are understood."""
    return tuple(name for name, kind in KINDS.items() if kind.metrics)


def parse(words: Sequence[str], environ: Mapping[str, str]) -> Options:
    """Raises ``Mistake``; a mistake in the words alone ends the program as argparse does, with exit code 2."""
    given = _parser(environ).parse_args(words)
    seconds = _seconds("REQUEST_TIMEOUT", environ.get("REQUEST_TIMEOUT") or "30")
    return Options(
        engine=_engine(given, environ, seconds),
        host=given.host,
        port=given.port,
        pod=given.pod or "",
        roots=_roots(given.allow_root),
        vocabulary=VOCABULARIES[given.metrics_prefix],
        transform=_true(environ, "METRICS_ENABLE_TRANSFORMATION", True)
        and not _true(environ, "METRICS_RAW_PASSTHROUGH_MODE", False),
        keep_originals=not given.drop_originals,
        max_lora_rank=given.max_lora_rank,
        request_timeout=seconds,
        model_dir=Path(environ.get("DOWNLOADER_LOCAL_DIR") or MODELS),
        max_workers=_workers(environ.get("DOWNLOADER_NUM_THREADS") or "8"),
        log_level=given.log_level,
        access_log=given.access_log,
    )


def _engine(given: argparse.Namespace, environ: Mapping[str, str], seconds: float) -> EngineSpec:
    if not given.engine:
        raise Mistake(f"--engine (or INFERENCE_ENGINE) is missing; supported: {', '.join(supported())}")
    kind = SIDECAR_SYNONYMS.get(given.engine.lower(), given.engine.lower())
    if kind not in supported():
        raise Mistake(f"unsupported engine {given.engine!r}; supported: {', '.join(supported())}")
    url = given.engine_base_url.rstrip("/")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if parts.scheme not in ("http", "https") or not host or parts.query or parts.fragment or parts.username:
        raise Mistake(f"--engine-base-url {given.engine_base_url!r} is not like http://localhost:8000")
    if not given.engine_metrics_path.startswith("/"):
        raise Mistake(f"--engine-metrics-path {given.engine_metrics_path!r} does not begin with a slash")
    return EngineSpec(
        name=given.model or kind,
        kind=kind,
        model=given.model or "",
        host=host,
        port=port or (443 if parts.scheme == "https" else 80),
        base_url=url,
        served_names=(given.model or "",),
        api_key=next((environ[name] for name in ENGINE_KEYS if environ.get(name)), None),
        metrics_path=given.engine_metrics_path,
        call_seconds=seconds,
    )


def _roots(given: Sequence[Path]) -> tuple[Path, ...]:
    roots = tuple(given) or (Path("/models"), Path.home(), Path(tempfile.gettempdir()))
    for root in roots:
        if not root.is_absolute():
            raise Mistake(f"--allow-root {root} is not an absolute path")
    return roots


def _true(environ: Mapping[str, str], name: str, default: bool) -> bool:
    value = environ.get(name, "").strip().upper()
    return value in ("1", "ON", "YES", "TRUE") if value else default


def _seconds(name: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value <= LONGEST_TIMEOUT:
        raise Mistake(f"{name}={text!r} is not a number of seconds above 0 and up to {LONGEST_TIMEOUT:.0f}")
    return value


def _workers(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 64:
        raise Mistake(f"DOWNLOADER_NUM_THREADS={text!r} is not a whole number from 1 to 64")
    return int(text)


PATHS = """\
paths:
  GET    /health /healthz                that the sidecar lives
  GET    /ready                          that the engine answers
  GET    /metrics                        the engine's metrics under standard names
  GET    /metrics/runtime                the sidecar's own
  GET    /v1/models                      what the engine lists
  GET    /v1/lora_adapters               the adapters it has loaded
  POST   /v1/load_lora_adapter           download and load   {"lora_name", "source", "output_dir", ...}
  POST   /v1/unload_lora_adapter         {"lora_name"}
  POST   /v1/download_model              {"source", "output_dir", ...}
  GET    /v1/jobs, /v1/jobs/ID           downloads and loads: progress, result, error
  DELETE /v1/jobs/ID                     cancel one
  POST   /v1/lora_adapter/load, /v1/lora_adapter/unload, /v1/model/download;  GET /v1/model/list     as AIBrix has them

environment: REQUEST_TIMEOUT (30), ENGINE_API_KEY or VLLM_API_KEY, METRICS_ENABLE_TRANSFORMATION (1),
  METRICS_RAW_PASSTHROUGH_MODE (0), DOWNLOADER_LOCAL_DIR, DOWNLOADER_NUM_THREADS, and keys for downloads
  (docs/downloads.md). `python -m runtime fetch --help`: a download by hand."""


def _parser(environ: Mapping[str, str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m runtime",
        description="A sidecar for one engine: its metrics under standard names, LoRA adapters, downloads.",
        epilog=PATHS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("-E", "--engine", default=environ.get("INFERENCE_ENGINE"), help="one of " + ", ".join(supported()))
    add("-H", "--host", default="0.0.0.0", help="address to listen on (%(default)s)")
    add("-P", "--port", type=port_number, default=9000, help="port to listen on (%(default)s)")
    url = environ.get("INFERENCE_ENGINE_ENDPOINT") or "http://localhost:8000"
    add("-B", "--engine-base-url", default=url, metavar="URL", help="where the engine is (%(default)s)")
    path = environ.get("METRIC_SCRAPE_PATH") or "/metrics"
    add("-M", "--engine-metrics-path", default=path, metavar="PATH", help="its metrics (%(default)s)")
    add("-I", "--pod", help="a name for this place, shown in the sidecar's own metrics")
    add("-N", "--model", help="the name of the engine's model, shown there too")
    add("--allow-root", type=Path, action="append", default=[], metavar="DIR", help="downloads may be below it; may be "
        "given again (/models, the home and the temporary directory)")  # fmt: skip
    add("--metrics-prefix", choices=list(VOCABULARIES), default="torpor", help="of the standard names (%(default)s)")
    add("--drop-originals", action="store_true", help="leave the engine's own names out of /metrics")
    add("--max-lora-rank", type=int, metavar="N", help="the engine's; adapters above it are refused before it is asked")
    add("--log-level", default="info", choices=["debug", "info", "warning", "error"])
    add("--access-log", action="store_true", help="a line for each request")
    return parser

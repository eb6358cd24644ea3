"""AIBrix Runtime's paths: its requests and answers. Errors have its shape and the status that they deserve."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from runtime.downloads import marker
from runtime.downloads.credentials import credentials_of, is_key
from runtime.downloads.source import parse
from runtime.settings import Settings
from runtime.sidecar.answer import Json
from runtime.sidecar.beside import Beside
from runtime.sidecar.body import flag, mapping, needed, only, read_object, text
from runtime.sidecar.credential_sets import CredentialSets
from runtime.sidecar.edge import told
from runtime.sidecar.jobs import Status
from runtime.sidecar.loading import DOWNLOAD, Download, Load, Loader, Unload, check_name
from runtime.sidecar.options import Options
from runtime.sidecar.problems import BadRequest, Failure, NotFound

DELEGATED = ("lora_name", "artifact_url", "credentials_secret", "credentials", "additional_config", "local_dir")
AT_ONCE_SECONDS = 1.0
"""What is there unchanged is found to be so within this time, and told in the same answer."""


class Aibrix:
    def __init__(self, beside: Beside, loader: Loader, settings: Settings, options: Options) -> None:
        self._beside = beside
        self._loader = loader
        self._settings = settings
        self._options = options
        self._sets = CredentialSets(options.secrets_dir)

    def routes(self) -> list[Route]:
        post = ["POST"]
        return [
            Route("/v1/lora_adapter/load", told(self.load, shape), methods=post),
            Route("/v1/lora_adapter/unload", told(self.unload, shape), methods=post),
            Route("/v1/model/download", told(self.download, shape), methods=post),
            Route("/v1/model/list", told(self.list, shape), methods=["GET"]),
        ]

    # -- adapters ------------------------------------------------------------------------------------------------

    async def load(self, request: Request) -> Response:
        body = await read_object(request)
        name = needed(body, "lora_name")
        check_name(name)
        if "artifact_url" in body:
            return await self._load_delegated(request, body, name)
        only(body, "lora_name", "lora_path", "load_inplace")
        path = await self._loader.allowed(needed(body, "lora_path"), "lora_path")
        if not await asyncio.to_thread(path.is_dir):
            raise NotFound(f"lora_path {str(path)!r} is no folder")
        wanted = Load(name, path, None, replace=flag(body, "load_inplace", False))
        await self._loader.jobs.wait(self._loader.load(wanted, self._beside.asked_by(request)))
        return PlainTextResponse(f"Success: LoRA adapter '{name}' loaded successfully from '{path}'.")

    async def _load_delegated(self, request: Request, body: Mapping[str, Any], name: str) -> Response:
        only(body, *DELEGATED)
        url, config = needed(body, "artifact_url"), mapping(body, "additional_config")
        secret = text(body, "credentials_secret")
        keys = {**(await self._sets.read(secret) if secret else {}), **mapping(body, "credentials")}
        keys |= {key: value for key, value in config.items() if is_key(key)}
        home = await self._loader.allowed(str(self._home(name, text(body, "local_dir"))), "local_dir")
        wanted = Download(url, home, credentials_of(keys, self._settings), self._options.max_workers, keyed=True)
        key = config.get("api-key", config.get("api_key"))
        beside = self._beside.asked_by(request).with_key(key if isinstance(key, str) else None)
        job = self._loader.load(Load(name, home, await self._loader.checked(wanted)), beside)
        loaded = await self._loader.jobs.wait(job)
        content = {
            "status": "success",
            "message": f"Successfully loaded adapter {name}",
            "local_path": loaded["path"],
            "engine_response": loaded["engine"],
        }
        return Json(content)

    async def unload(self, request: Request) -> Response:
        """Done when the engine has none of that name; files go only then."""
        body = await read_object(request)
        name = needed(body, "lora_name")
        check_name(name)
        if "lora_int_id" in body:
            only(body, "lora_name", "lora_int_id")
            await self._loader.jobs.wait(self._loader.unload(Unload(name), self._beside.asked_by(request)))
            return PlainTextResponse(f"Success: LoRA adapter '{name}' removed successfully.")
        only(body, "lora_name", "cleanup_local")
        wanted = Unload(name, self._home(name, None), keep_files=not flag(body, "cleanup_local", True))
        await self._loader.jobs.wait(self._loader.unload(wanted, self._beside.asked_by(request)))
        return Json({"status": "success", "message": f"Successfully unloaded adapter {name}"})

    def _home(self, name: str, local_dir: str | None) -> Path:
        return (Path(local_dir) if local_dir else self._options.adapter_dir) / name

    # -- models --------------------------------------------------------------------------------------------------

    async def download(self, request: Request) -> Response:
        """Begins, or tells how far it is. A failure is told once, and the next call begins again."""
        body = await read_object(request)
        only(body, "model_uri", "local_dir", "model_name", "download_extra_config")
        uri = needed(body, "model_uri")
        source = parse(uri)
        name = text(body, "model_name") or model_name(uri)
        check_model_name(name)
        folder = await self._loader.allowed(str(self._models_dir(body) / name), "local_dir")
        config = {**mapping(body, "download_extra_config")}
        workers = config.pop("num_threads", self._options.max_workers)
        if isinstance(workers, bool) or not isinstance(workers, int) or not 1 <= workers <= 64:
            raise BadRequest("download_extra_config: num_threads must be a whole number from 1 to 64")
        wanted = Download(uri, folder, credentials_of(config, self._settings), workers)
        status = await self._progress(await self._loader.checked(wanted))
        return Json(card(name, folder, kind_of(source.shown), status))

    async def _progress(self, wanted: Download) -> str:
        """Of the download that is under way, or has failed since the last call, or begins now."""
        jobs = self._loader.jobs
        job = jobs.last(DOWNLOAD, wanted)
        if job is None or job.status in (Status.COMPLETED, Status.CANCELLED):  # the source may have changed
            job = self._loader.download(wanted)
        if job.status is Status.RUNNING and job.task is not None:
            await asyncio.wait([job.task], timeout=AT_ONCE_SECONDS)
        if job.error is not None:
            jobs.forget(job)
            raise job.error
        return "downloaded" if job.status is Status.COMPLETED else "downloading"

    async def list(self, request: Request) -> Response:
        body = await read_object(request, optional=True)
        only(body, "local_dir")
        folder = await self._loader.allowed(str(self._models_dir(body) / "any"), "local_dir")
        running = {str(job.shown.get("output_dir")) for job in self._loader.jobs.running()}
        cards = await asyncio.to_thread(model_cards, folder.parent, running)
        return Json({"object": "list", "data": cards})

    def _models_dir(self, body: Mapping[str, Any]) -> Path:
        return Path(text(body, "local_dir") or self._options.model_dir)


def model_cards(folder: Path, running: set[str]) -> list[dict[str, str]]:
    """Whole models by their markers, and those under way. Reads the disk."""
    cards = []
    names = {one.name for one in folder.iterdir() if not one.name.startswith(".")} if folder.is_dir() else set()
    names |= {Path(path).name for path in running if Path(path).parent == folder}
    for name in sorted(names):
        whole = marker.read(folder / name)
        under_way = str(folder / name) in running
        if under_way or whole is not None:
            source = "unknown" if whole is None else kind_of(whole.source)
            cards.append(card(name, folder / name, source, "downloading" if under_way else "downloaded"))
    return cards


def card(name: str, root: Path, source: str, status: str) -> dict[str, str]:
    return {"model_name": name, "model_root_path": str(root), "source": source, "model_status": status}


def kind_of(source: str) -> str:
    """A source's kind in AIBrix's words."""
    scheme = source.partition("://")[0] if "://" in source else "file"
    return {"hf": "huggingface", "http": "web", "https": "web"}.get(scheme, scheme)


def model_name(uri: str) -> str:
    return uri.partition("?")[0].rstrip("/").rpartition("/")[2].partition("@")[0]


def check_model_name(name: str) -> None:
    try:
        check_name(name)
    except BadRequest:
        raise BadRequest(f"model_name {name[:130]!r} is not one: give another in model_name") from None


def shape(failure: Failure) -> Mapping[str, Any]:
    """An error as AIBrix tells it; ``error`` is what its delegated calls have."""
    return {
        "object": "error",
        "message": failure.message,
        "type": failure.type,
        "param": None,
        "code": failure.status,
        "error": failure.message,
    }

"""Kthena Runtime's paths: its requests and answers, and what it lacks, jobs above all. Errors are ``{"detail": …}``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from runtime.downloads.credentials import credentials_of
from runtime.settings import Settings
from runtime.sidecar.answer import Json
from runtime.sidecar.beside import Beside
from runtime.sidecar.body import flag, mapping, needed, read_object, text, whole
from runtime.sidecar.edge import told
from runtime.sidecar.jobs import Job
from runtime.sidecar.loading import Download, Load, Loader, Unload, check_name
from runtime.sidecar.problems import BadRequest, Failure

WORKERS, MOST_WORKERS = 8, 64


class Kthena:
    def __init__(self, beside: Beside, loader: Loader, settings: Settings, adapter_dir: Path) -> None:
        self._beside = beside
        self._loader = loader
        self._settings = settings
        self._adapter_dir = adapter_dir

    def routes(self) -> list[Route]:
        post, get = ["POST"], ["GET"]
        return [
            Route("/v1/load_lora_adapter", told(self.load, shape), methods=post),
            Route("/v1/unload_lora_adapter", told(self.unload, shape), methods=post),
            Route("/v1/download_model", told(self.download, shape), methods=post),
            Route("/v1/lora_adapters", told(self.adapters, shape), methods=get),
            Route("/v1/models", told(self.models, shape), methods=get),
            Route("/v1/jobs", told(self.jobs, shape), methods=get),
            Route("/v1/jobs/{id}", told(self.job, shape), methods=get),
            Route("/v1/jobs/{id}", told(self.cancel, shape), methods=["DELETE"]),
        ]

    async def load(self, request: Request) -> Response:
        body = await read_object(request)
        name = needed(body, "lora_name")
        check_name(name)
        source, given = text(body, "source"), text(body, "output_dir")
        if source is None and given is None:
            raise BadRequest("Missing required parameter: source or output_dir")
        path = await self._loader.allowed(given or str(self._adapter_dir / name), "output_dir")
        download = None if source is None else await self._loader.checked(self._download(body, source, path))
        in_background = flag(body, "async_download", False)
        job = self._loader.load(Load(name, path, download), self._beside.asked_by(request))
        if in_background:
            message = "LoRA adapter download and load started in background"
            return started(
                job, message, {"lora_name": name, "source": download and download.shown, "output_dir": str(path)}
            )
        return Json((await self._loader.jobs.wait(job))["engine"])

    async def unload(self, request: Request) -> Response:
        """The engine's own answer, with its status. Files stay."""
        name = needed(await read_object(request), "lora_name")
        check_name(name)
        job = self._loader.unload(Unload(name), self._beside.asked_by(request))
        return Json(await self._loader.jobs.wait(job))

    async def download(self, request: Request) -> Response:
        body = await read_object(request)
        source, given = needed(body, "source"), needed(body, "output_dir")
        path = await self._loader.allowed(given, "output_dir")
        wanted = replace(self._download(body, source, path), keyed=flag(body, "keyed", False))
        in_background = flag(body, "async_download", False)
        job = self._loader.download(await self._loader.checked(wanted))
        told_back = {"source": wanted.shown, "output_dir": given}
        if in_background:
            return started(job, "Model download started in background", told_back)
        result = await self._loader.jobs.wait(job)
        if wanted.keyed:
            told_back["output_dir"] = result["path"]
        message = "Model download completed successfully"
        return Json({"status": "completed", "message": message, **told_back})

    async def adapters(self, request: Request) -> Response:
        """What the engine has loaded, by its own word."""
        seen = await self._beside.asked_by(request).engine.adapters()
        cards = [{"lora_name": name, **asdict(adapter)} for name, adapter in seen.items()]
        return Json({"object": "list", "data": cards})

    async def models(self, request: Request) -> Response:
        answer = await self._beside.asked_by(request).models()
        kind = answer.headers.get("content-type", "application/json")
        return Response(answer.content, answer.status_code, headers={"content-type": kind})

    async def jobs(self, _: Request) -> Response:
        return Json({"object": "list", "data": [job.as_json() for job in self._loader.jobs.all()]})

    async def job(self, request: Request) -> Response:
        return Json(self._loader.jobs.get(request.path_params["id"]).as_json())

    async def cancel(self, request: Request) -> Response:
        job = await self._loader.jobs.cancel(request.path_params["id"])
        return Json(job.as_json())

    def _download(self, body: Mapping[str, Any], source: str, path: Path) -> Download:
        credentials = credentials_of(mapping(body, "config"), self._settings)
        return Download(source, path, credentials, whole(body, "max_workers", WORKERS, MOST_WORKERS))


def started(job: Job, message: str, fields: Mapping[str, Any]) -> Response:
    body = {"status": "started", "message": message, **fields, "job_id": job.id}
    return Json(body, 202, headers={"location": f"/v1/jobs/{job.id}"})


def shape(failure: Failure) -> Mapping[str, Any]:
    """An error as Kthena tells it."""
    return {"detail": failure.message}

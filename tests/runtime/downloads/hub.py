"""A hub on this machine, as far as huggingface_hub asks it: repositories, revisions, trees, files, errors.

Large files redirect to a second server, as the hub's do to its content network.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

from tests.runtime.downloads.web_server import Page, Web

LARGE = 1 << 16


class Hub:
    def __init__(self, site: Web, network: Web) -> None:
        self.site = site
        self.network = network
        self.endpoint = site.url("")
        site.missing = Page(status=404, headers={"X-Error-Code": "RepoNotFound"})

    def publish(
        self,
        repository: str,
        files: Mapping[str, bytes],
        *,
        revisions: tuple[str, ...] = ("main",),
        token: str | None = None,
    ) -> str:
        """A commit, which the given branches now stand for."""
        commit = hashlib.sha1(json.dumps([repository, sorted(map(repr, files.items()))]).encode()).hexdigest()
        about = json.dumps({"id": repository, "modelId": repository, "sha": commit, "siblings": []}).encode()
        api = f"/api/models/{repository}"
        for revision in (*revisions, commit):
            self.site.pages[f"{api}/revision/{revision}"] = Page(about, None, wants=token)
        if "main" in revisions:
            self.site.pages[api] = Page(about, None, wants=token)
        tree = [self._file(repository, commit, name, data, token) for name, data in files.items()]
        folders = {name.rpartition("/")[0] for name in files} - {""}
        tree += [{"type": "directory", "path": folder, "oid": "0" * 40, "size": 0} for folder in folders]
        self.site.pages[f"{api}/tree/{commit}"] = Page(json.dumps(tree).encode(), None, wants=token)
        return commit

    def refuse(self, path: str, status: int, code: str) -> None:
        self.site.pages[path] = Page(status=status, etag=None, headers={"X-Error-Code": code})

    def _file(self, repository: str, commit: str, name: str, data: bytes, token: str | None) -> dict[str, object]:
        place = f"/{repository}/resolve/{commit}/{name.replace(' ', '%20')}"
        blob = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
        entry: dict[str, object] = {"type": "file", "path": name, "oid": blob, "size": len(data)}
        if len(data) < LARGE:
            self.site.pages[place] = Page(data, wants=token)
            return entry
        sha256 = hashlib.sha256(data).hexdigest()
        self.network.pages[f"/{sha256}"] = Page(data)
        self.site.pages[place] = Page(status=302, location=self.network.url(f"/{sha256}?Signature=x"), wants=token)
        return entry | {"lfs": {"oid": sha256, "size": len(data), "pointerSize": 134}}

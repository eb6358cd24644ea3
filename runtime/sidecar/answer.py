"""JSON that can always be sent: what UTF-8 cannot hold, such as half a surrogate pair of a request, is escaped."""

from __future__ import annotations

import json
from typing import Any

from starlette.responses import Response


class Json(Response):
    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        return json.dumps(content, separators=(",", ":")).encode("ascii")

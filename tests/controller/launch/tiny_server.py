"""PORT MODEL [--child]: an OpenAI server with no model. It writes down its pid, argv, folder and environment.

``--child``: it has a grandchild that ignores SIGTERM and has left its session's process group.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

PORT, MODEL = int(sys.argv[1]), sys.argv[2]
STUBBORN = "trap '' TERM HUP; sleep 300 & echo $! > grandchild.pid; while :; do sleep 1; done"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        answers = {
            "/v1/models": {"object": "list", "data": [{"id": MODEL, "object": "model"}]},
            "/health": {"status": "healthy"},
        }
        body = json.dumps(answers.get(self.path, {})).encode()
        self.send_response(200 if self.path in answers else 404)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


if __name__ == "__main__":
    sys.stdout.write(f"first line of {MODEL}\n")
    sys.stdout.flush()
    about = {
        "pid": os.getpid(),
        "argv": sys.argv,
        "folder": str(Path.cwd()),
        "environment": dict(os.environ),
        "files": resource.getrlimit(resource.RLIMIT_NOFILE),
    }
    if "--child" in sys.argv:
        subprocess.Popen(["setsid", "sh", "-c", STUBBORN])
    httpd = ThreadingHTTPServer(("127.0.0.1", PORT), Handler)
    Path(f"{MODEL.replace('/', '_')}.json").write_text(json.dumps(about))
    httpd.serve_forever()

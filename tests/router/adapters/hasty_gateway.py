"""A gateway as a program that waits for nothing: ``python -m tests.router.adapters.hasty_gateway YAML PORT``."""

from __future__ import annotations

import sys
from pathlib import Path

import uvicorn

from controller.adapters import backoff, controller, steps
from controller.config.load import load
from router.app import create_app


def main(file: str, port: str) -> None:
    steps.STABLE_SECONDS = 0.0
    backoff.DELAYS = (0.2,) * 5
    controller.AGAIN_SECONDS = 0.05
    uvicorn.run(create_app(load(Path(file))), host="127.0.0.1", port=int(port), log_level="warning")


if __name__ == "__main__":
    main(*sys.argv[1:])

"""python -m runtime.engines.sim"""

from __future__ import annotations

import logging
import os
import sys

from runtime.engines.sim.arguments import parse
from runtime.engines.sim.errors import ApiError
from runtime.engines.sim.server import run


def main() -> int:
    options, ignored = parse(sys.argv[1:], os.environ)
    level = logging.getLevelNamesMapping().get(options.log_level.upper(), logging.INFO)
    logging.basicConfig(level=level, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logger = logging.getLogger("runtime.engines.sim")
    if ignored:
        logger.info("accepted and ignored: %s", " ".join(ignored))
    try:
        return run(options)
    except ApiError as error:
        logger.error("--fault: %s", error.message)
        return 2


if __name__ == "__main__":
    sys.exit(main())

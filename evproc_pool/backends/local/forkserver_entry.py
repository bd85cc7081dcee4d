"""A forkserver imports this, and so the modules of workers; see `preloading`."""

import evproc_pool.worker.main  # noqa: F401 - every worker needs it
from evproc_pool.backends.local.preloading import run

run()

"""A forkserver that imports this has its workers' modules imported; see `preloading`."""

import evproc_pool.worker.loop  # noqa: F401 - and with it all that a worker needs
from evproc_pool.backends.local.preloading import run

run()

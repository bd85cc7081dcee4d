"""A forkserver that imports this has its workers' modules imported; see `preloading`."""

from evproc_pool.preloading import run

run()

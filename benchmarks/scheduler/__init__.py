"""The benchmark of the pure scheduler, without processes: what its decisions cost.

::

    suite ──> simulation.Simulation ──step()──> evproc_pool.core.scheduler.Scheduler
                    │      <──Send, Settled──
                    └─ virtual time: a heap of when each worker is done
"""

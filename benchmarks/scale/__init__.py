"""The benchmark of scale: how many workers one coordinator keeps busy, in virtual time.

::

    costs ──> measured once, with a real pool of two workers
    suite ──> simulation.Scaled ──step()──> evproc_pool.core.scheduler.Scheduler
                  └─ virtual time: workers, the way to them, and a coordinator that takes its time
"""

"""Every decision of the pool, as plain functions and state machines.

Scheduling, cascades, keys, batching, estimates, retries and limits. Nothing here has a clock, a
thread, a process or I/O: time is an argument, inputs go in and effects come out. So a seed can
simulate it.

May import: itself, `evproc_pool.errors`, `evproc`. Begin with `scheduler`, then
`inputs_and_effects`.
"""

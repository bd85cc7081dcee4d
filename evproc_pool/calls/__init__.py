"""The implementation of `PoolProcessor`, for a pool with workers.

`handlers` has the pool's handlers, `engines` starts and ends the engine that runs them in workers,
`starters` makes what has the workers, and `worker_calls` and `async_calls` have the calls.
`function_call` has the event of a call of `PoolExecutor`. `inprocess` has the calls of a pool
without workers.

Ctrl-C in a waiting thread is caught by each call (`pool`, `worker_calls`,
`coordinator.pool_future`) and ends in `coordinator.engine.Engine.interrupt`. If it strikes in a
turn, `coordinator.driving` catches it.

May import: itself, `options`, `inprocess`, `backends`, `coordinator`, `protocol`, `serialization`,
`observe`, `core`, `internals`, `outcome`, `errors`, `log`, `evproc`. Begin with `engines`.
"""

"""Backends start workers and move frames. Each implements `evproc_pool.protocol.backend`.

Local processes are in `local`. A backend for Dask or Ray would stand beside it. It also needs a
`calls.engines.Starter`, which makes it: `EngineOwner` has a `ProcessStarter`, and
`testing.simulated` replaces that, since no option of `PoolProcessor` chooses one. In each worker
it needs a `protocol.frame.WorkerChannel` for `worker.loop.prepare`. The smallest example is
`testing.backend` with `testing.workers`.

May import: itself, `worker`, `ipc`, `protocol`, `internals`, `errors`, `log`.
"""

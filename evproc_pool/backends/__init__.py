"""Backends start workers and move frames. Each implements `evproc_pool.protocol.backend`.

Local processes are in `local`. A backend for Dask or Ray would stand beside it. It also needs a
`calls.engines.Starter`, which makes it, and in each worker an `ipc.channel.WorkerChannel` for
`worker.loop.prepare`. The smallest example is `testing.backend` with `testing.workers`.
"""

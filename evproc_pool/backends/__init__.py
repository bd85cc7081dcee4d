"""Backends start workers and move frames. Each implements `evproc_pool.protocol.backend`.

Local processes are in `local`, plain calls of an executor in `executor`, and local processes of
other nodes behind `agents`. `choice` says what `executor=` stands for, `promises` what each backend
promises. A new backend stands beside these. It needs a line in `choice.ENGINES`, a
`calls.starters.Starter`, which makes it, and in each worker a `protocol.frame.WorkerChannel` for
`worker.loop.prepare`. The smallest example is `testing.backend` with `testing.workers`.

May import: itself, `worker`, `ipc`, `protocol`, `serialization`, `internals`, `errors`, `log`.
"""

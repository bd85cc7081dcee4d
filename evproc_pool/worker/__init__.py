"""The worker process.

`loop` has both loops: over batches, and over the handlers of each event (`Worker._run`, written out
instead of calling `evproc.processor.run_handlers`). `result_packing` pickles the results;
`protocol.pass_through` pickles plain follow-ups. `process` has signals, forks and the flush of
streams; `output` sends log records and warnings.

May import: itself, `ipc`, `protocol`, `serialization`, `internals`, `errors`, `evproc`; nothing of
the scheduler. Begin with `loop`. `entry` is the function that a new process calls,
`main` the process.
"""

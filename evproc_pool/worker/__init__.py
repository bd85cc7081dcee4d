"""The worker process.

May import: itself, `ipc`, `protocol`, `serialization`, `internals`, `evproc_pool.errors`, `evproc`;
nothing of the scheduler. Begin with `loop`. `entry` is the function that a new process calls.
"""

"""The worker process.

May import: itself, `ipc`, `protocol`, `serialization`, `evproc_pool.errors`, `evproc`; nothing of
the scheduler. Begin with `loop`. A new process calls `entry`.
"""

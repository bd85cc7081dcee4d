"""Worker processes on this machine.

May import: itself, `worker`, `ipc`, `protocol`, `internals`, `evproc_pool.errors`. Begin with
`processes`, which has all of them; `member` has one.
"""

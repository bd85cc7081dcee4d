"""Worker processes on this machine.

May import: itself, `worker`, `ipc`, `protocol`, `internals`, `evproc_pool.errors`. Begin with
`processes`.
"""

"""The messages that coordinator and worker exchange, and what both must agree on.

Frames and their payloads, log records and warnings, the status words, the registry spec, the state
of the process that workers take over, and the interface of a backend.

May import: itself, `serialization`, `errors`, `evproc`. Begin with `messages`;
a new backend implements `backend`.
"""

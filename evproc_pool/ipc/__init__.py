"""How two processes on one machine exchange data.

Channels, shared memory and its allocator, status words in memory, inherited descriptors, and the
detection of parent death.

May import: itself, `protocol`, `errors`. Begin with `channel`.
"""

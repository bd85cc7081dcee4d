"""The shell around `core` in the process that owns the pool.

Threads, feeding, outcomes, futures, and who is charged for the death of a worker. The scheduler
decides; this package performs the effects and reports the inputs.

May import: itself, `core`, `protocol`, `serialization`, `evproc_pool.errors`,
`evproc_pool.outcome`, `evproc`; no backend. Begin with `coordinator`, then `engine`.
"""

"""The benchmark of `Processor.process`, one event after another in one process.

::

    suite ──> cases.framework(evproc)      ours, in this interpreter
      │  └──> cases.hand_written(evproc)   the limit, in this interpreter
      │
      └────> original.Original ──pipe──> served ──> cases.framework(evproc 0.2.0)

Both frameworks are called `evproc`, so 0.2.0 has an interpreter of its own; it
runs the same `cases` and the same `benchmarks.timing`.
"""

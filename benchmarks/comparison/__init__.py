"""The benchmark that compares `PoolProcessor` with every other pool.

::

    suite ──> hosts.Host ──pipe──> a process with one system: throughput, latency
      │          └─ one for each of catalogue.installed()
      ├──> limits.Control         two plain processes, of `pool`
      ├──> interpreters ──> scripts     new interpreters: start-up, import, __main__
      ├──> footprint      an interpreter for each: resident memory
      │
      └──> JSON ──> plots

Rules, besides those of `pool`:

- Every system is in a process of its own, so that none is in the way of another; those
  that compute while they wait are stopped while others are sampled.
- Every peer is given `Processor.process` as its function, or the plain one for log lines,
  and its best chunk size for the very load. Where it has none, batches are made by hand.
- A peer that is not installed, or fails, is left out, and a note says so.
"""

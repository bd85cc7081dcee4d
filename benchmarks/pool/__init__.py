"""The benchmark of `PoolProcessor`, against other pools and against two limits.

::

    suite ──> values, keys, calls, shapes      more cases of its own
      │
      ├──> bench           the sides of a run, and figures made of samples
      ├──> loads           which events, how many, in which order; kinds, lines: of what
      │         ^
      │         │ the same events and handlers for all
      ├──> PoolProcessor ────────────────> workers: handlers
      ├──> peers.MultiprocessingPool ────> workers: peers.handle ──> handlers
      ├──> peers.Executor ───────────────> workers: peers.handle ──> handlers
      ├──> limits.SocketPair ────────────> workers: handlers   no pool around it
      ├──> limits.Control ───────────────> workers: handlers   no events sent at all
      │
      └──> memory ──> an interpreter of its own, with a pool in it

Rules, besides those of all benchmarks:

- Every side has two workers, made by the same start method, started and warmed
  up before the first sample.
- Every sample gets events that were made for it, as many for every side of a
  ratio (but for those that get one event at a time, which get fewer), before its
  time starts: what has been read or pickled once is warmer than what has not.
- Peers have no setting that suits every load, so each is measured as it comes,
  one event at a time, and with the chunk size that turns out best for that very
  load in the same run.
- Handlers that compute burn the CPU time of their own thread, so that a worker
  that has to wait for a core earns nothing.
"""

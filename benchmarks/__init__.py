"""The project's benchmarks; ``python -m benchmarks`` from the repository's root runs them.

Rules, for every benchmark here:

- A speed is a ratio against a peer or a limit that was measured in the same
  run. Microseconds are printed beside it, but they belong to one machine on one
  day and are compared with nothing.
- The sides of a ratio are sampled in turn within each repeat, and the ratio is
  taken within the repeat, so that a machine that slows down for a second slows
  down both.
- Medians decide; the spread is printed with every figure, that of a ratio too.
- What could not be measured is said to be missing, never left out in silence.

::

    cli ──> Benchmark.run(settings) ──> Row | Note ──> report ──> table, JSON
                  │
                  └─ timing.interleaved(samplers, repeats)

A benchmark is a package of its own beside `process`, listed in `cli`. `pictures` is none:
it draws the pictures of the project's README.
"""

"""The demo: a survey of Python source code, and an example to copy.

One event per file; handlers that read, parse and measure it, found through
entry points and ordered by what they require; follow-ups for what deserves a
second look; one report per file, which is the value of its cascade.

::

    SourceFile
      read -> parse -+-> tokenize ---+-> report -+
                     +-> measure ----+           |
                     +-> docstrings -+           |
                     +-> imports ----+           |
                                                 |
    ComplexFunctions    (if it has any)       <--+
      read -> parse ---> weigh ------------------+
                                                 |
    CycleCandidates     (if it has any)       <--+
      confirm -----------------------------------+
                                                 |
    the value: a FileReport, or a BadFile     <--+

The modules: `events` (what is sent and what comes back), `handlers`, the work
they do in `sources` and `metrics`; the application around them in `survey` (the
runs), `findings` (tables), `show` (the terminal) and `cli` (the command line).

May import: itself, and the public names of both packages.

``python -m evproc_pool.demo --help`` says how to run it.
"""

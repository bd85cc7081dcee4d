"""Whole programs on the pool, beside the pools that they have or that people would take.

An application is a folder here::

    NAME/__main__.py   one command, `python -m benchmarks.applications.NAME`
    NAME/suite.py      `measure(settings)`: yields the parts of a report in this order:
                       equal results first, then times, then what happens when something fails
    NAME/...           the glue: what it takes to run the program on the pool

`python -m benchmarks.applications [NAME ...]` runs the suites and prints their reports; each
folder with a `suite` is found. A program with a command line of its own (flake8) has that one in
its `__main__`, and is measured by this command. What all of them share::

    sides    times of sides that take turns, ratios, bars
    programs a program in a process group of its own: how it ended, what it left behind
    report   what is printed, and the same as plain data
    plots    bars with their spread, as SVG
    glue     lines of code, counted

Rules, besides those of `benchmarks`:

- Nothing is timed before its result was compared with that of the program's own serial run.
- A program from the package index is imported, not copied, and unchanged but for its pool.
- Whatever a pool does about a fault was seen in this run: in a new interpreter, with a limit.
- The extra `applications` has all that is imported, and only when an application runs.
"""

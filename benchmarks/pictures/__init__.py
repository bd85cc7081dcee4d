"""The pictures of README.md, made from what commands print.

::

    python -m benchmarks.pictures           all of them
    python -m benchmarks.pictures graph     one

`scenes` is the table of what is shown, `shop` the application in it, `terminal` runs the commands
and draws. Needs `pyte`, which the extra `[test]` has.
"""

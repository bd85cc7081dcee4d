"""flake8 on the pool: a file is an event, each of its plug-ins a handler.

    python -m benchmarks.applications.flake8 [flake8's arguments] [--event-timeout SECONDS]

acts as `flake8` does: the same options, configuration, output and exit status. flake8 reads its
command line, finds and loads plug-ins, walks through a file, and sorts and prints what they
found. Only what stands between the list of files and the list of findings is replaced::

    program   flake8's `Application` and `Manager`, with a pool in the place of its own
    handlers  the handlers of a file: two that prepare it, one for each plug-in, one that ends it
    plugins   flake8's plug-ins and options in this process, a worker's or the program's

and beside it, to show what it does::

    suite     `python -m benchmarks.applications flake8`: the comparison with flake8's own pool
    faults    plug-ins that exit, hang or remember, as nobody should write them
"""

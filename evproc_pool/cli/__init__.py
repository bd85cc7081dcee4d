"""The command `evproc`: look at handlers, run events through them, and measure.

Each command has three parts: a pure one that computes a value (`inventory`, `graphs`,
`bench_verdict`), one that renders it (`views`, `diagrams`), and the command line around both
(`commands`, `run_command`). `start` is the entry point. It imports `click` and `rich` (the extra
`[cli]`), and says so if they are missing. Workers import `json_event` and `undisturbed` only.

::

    evproc run:  lines --LineReader--> json objects --decode--> events --> pool
                 output <--OutcomeWriter-- outcomes <--------------------'

May import: itself, `observe`, and the public names of both packages.

Exit status: 0, all is well; 1, the handlers of the group have a fault, or an event failed;
2, the command cannot do its work (a wrong argument, a file that cannot be read, a missing extra);
130, Ctrl-C (143, SIGTERM).
"""

"""A log pipeline, as people write it every day: JSON lines in, one result file out.

::

    generator ──> log ──> decode, enrich, classify (reading) ──> sessions ──> result file
                               │
                               ├─ plugins   three handlers; an event is a line, or a block
                               └─ read      one function, for pools that map one
    sides     the program on every pool, as its users write it
    faults    what each does when something goes wrong: program, fragile
    suite     all of it

What is done with a line is the same for every side. The order of a user's lines matters.
"""

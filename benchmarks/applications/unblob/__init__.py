"""unblob on the pool: it finds archives and file systems in files, and extracts them, all levels.

unblob has a pool of forked processes, whose tasks are files and folders. Here its tasks, and each
chunk that is extracted, are events of `evproc_pool`::

    Inspect (a file) -- identified in a worker --> Extract, named by its format, for each chunk
    Extract -- the format's handler --> Inspect for each file in the new folder

The glue, which is all that it takes:

    events     what crosses, and what formats are called
    handlers   the worker's side: unblob's own classes, put together anew
    survey     the coordinator's side: one report of all outcomes, by their paths

The rest measures it: `inputs` makes archives, `own` is unblob's own run, `once` is one run of
either in a new interpreter, `faulty_formats` is a plug-in of unblob's with formats that kill or
hang, `comparing` compares folders and reports, `faults` tries what goes wrong, `suite` has it all.
"""

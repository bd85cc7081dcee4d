"""Worker processes on this machine.

Begin with `processes`, which has all of them; `worker_process` has one.
"""

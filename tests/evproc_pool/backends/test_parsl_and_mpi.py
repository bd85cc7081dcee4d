"""A pool on executors of Parsl and mpi4py, which the extra `[executors]` does not install.

In programs of their own: MPI starts all processes of one, and Parsl leaves threads behind.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.helpers import ROOT

SECONDS = 120.0

PROGRAM = """
from evproc_pool import PoolProcessor
from evproc_pool.testing.conformance_handlers import HANDLERS, Job

def run(executor):
    events = [Job("give", number) for number in range(200)]
    events += [Job("fail", ValueError, 3), Job("split", 5, 2)]
    with PoolProcessor(2, executor=executor) as pool:
        for handler in HANDLERS:
            pool.register(handler)
        *values, failed, stopped = pool.process_many(events, return_exceptions=True)
    assert values == list(range(200))
    assert (type(failed), failed.args, stopped) == (ValueError, (3,), "stopped at 2")
    print("all is well")
"""

MPI = """
from mpi4py.futures import MPIPoolExecutor

if __name__ == "__main__":
    with MPIPoolExecutor() as executor:
        run(executor)
"""

PARSL = """
from parsl import Config
from parsl.concurrent import ParslPoolExecutor
from parsl.executors import ThreadPoolExecutor

if __name__ == "__main__":
    with ParslPoolExecutor(Config(executors=[ThreadPoolExecutor(max_threads=2)])) as executor:
        run(executor)
"""


def _run(folder: Path, code: str, *command: str) -> None:
    (folder / "program.py").write_text(PROGRAM + code)
    done = subprocess.run(
        [*command, "program.py"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "all is well\n"), done.stderr


def test_mpi4py_runs_the_calls_of_a_pool(tmp_path: Path) -> None:
    pytest.importorskip("mpi4py")
    if shutil.which("mpiexec") is None:
        pytest.skip("needs an MPI, such as pip install mpich")
    python = (sys.executable, "-m", "mpi4py.futures")
    _run(tmp_path, MPI, "mpiexec", "-n", "3", *python)


def test_parsl_runs_the_calls_of_a_pool(tmp_path: Path) -> None:
    pytest.importorskip("parsl")
    _run(tmp_path, PARSL, sys.executable)

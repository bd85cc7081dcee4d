"""What happens when an extraction goes wrong: with the pool, and with unblob's own run."""

from __future__ import annotations

import gzip
import json
import os
import random
import subprocess
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Final

from benchmarks.applications import programs
from benchmarks.applications.report import Check, Part, Table
from benchmarks.applications.unblob import faulty_formats, inputs
from benchmarks.applications.unblob.comparing import tree
from benchmarks.model import Note

#: Of a file or a chunk, if one hangs.
EVENT_TIMEOUT_SECONDS: Final = 3.0
#: After this it is taken for granted that a run hangs.
PATIENCE_SECONDS: Final = 20.0
_LIMIT_SECONDS: Final = 120.0

_DISK_KB: Final = 1500

#: A row of the table.
Row = tuple[str, str, str]

_VERB: Final = {"EVP-KILL": "kill", "EVP-HANG": "hang"}


@dataclass(frozen=True, slots=True)
class Run:
    """What a run has left: how it ended, its files, its report's text."""

    ending: programs.Ending
    files: dict[str, str]
    report: str

    def lost(self, expected: dict[str, str]) -> list[str]:
        """What is missing, or different."""
        return sorted(name for name in expected if self.files.get(name) != expected[name])


def fault_parts(folder: Path, number: int) -> Iterator[Part]:
    """Try each fault with both.

    Args:
        folder: Of this run.
        number: How many healthy files there are beside those with a fault.
    """
    rows: list[Row] = []
    for name, magic in (("killed", "EVP-KILL"), ("hangs", "EVP-HANG")):
        yield from _sorted_out(_one_chunk(folder / name, number, magic), rows)
    yield from _sorted_out(_interrupted(folder / "hangs"), rows)
    yield from _sorted_out(_full_disk(folder / "disk", number), rows)
    yield Table("When something goes wrong", ("", "on the pool", "unblob's own run"), tuple(rows))


def _sorted_out(parts: Iterator[Check | Note | Row], rows: list[Row]) -> Iterator[Check | Note]:
    for part in parts:
        if isinstance(part, Check | Note):
            yield part
        else:
            rows.append(part)


def _one_chunk(folder: Path, number: int, magic: str) -> Iterator[Check | Row]:
    """Compare runs in which the extraction of one chunk fails with one without faults."""
    files = folder / "files"
    make_faulty(files, number, magic)
    hangs = magic == "EVP-HANG"
    healthy = run("own", files, folder / "healthy", faults=False)
    timeout = ["--timeout", str(EVENT_TIMEOUT_SECONDS)] if hangs else []
    pool = run("pool", files, folder / "pool", *timeout)
    own = run("own", files, folder / "own", limit=PATIENCE_SECONDS if hangs else _LIMIT_SECONDS)
    what = "hangs" if hangs else "is killed"
    error = "EventTimeoutError" if hangs else "WorkerLostError"
    lost = pool.lost(healthy.files)
    extra = sorted(pool.files.keys() - healthy.files.keys())
    # what was carved stays, since it was not extracted, and the folder for its content
    chunk = f".evproc_{_VERB[magic]}"
    only_chunk = not lost and all(each.endswith((chunk, f"{chunk}_extract")) for each in extra)
    yield Check(
        f"an extraction that {what} costs its chunk only",
        holds=only_chunk and pool.ending.code == 0 and pool.ending.orphans == 0,
        detail=f"{len(healthy.files)} files and folders, {len(lost)} lost, status"
        f" {pool.ending.code}",
    )
    yield Check(
        f"the report has {error} for the chunk",
        holds=pool.report.count(f"{error}: ") == 1,
        detail=f"{pool.report.count(error + ': ')} times",
    )
    cost = f"{error} for the chunk, {len(lost)} of {len(healthy.files)} files and folders lost"
    title = f"the extraction of one chunk {what}"
    yield title, f"{cost}, {pool.ending.seconds:.1f} s", _own_words(own, healthy.files)


def _own_words(own: Run, expected: dict[str, str]) -> str:
    lost = f"{len(own.lost(expected))} of {len(expected)} files and folders lost"
    report = "with a report" if own.report else "no report"
    if own.ending.code is None:
        return f"does not end (killed after {PATIENCE_SECONDS:.0f} s), {lost}, {report}"
    why = "WorkerDiedError, " if "WorkerDiedError" in own.ending.output else ""
    return f"ends with {why}status {own.ending.code}, {lost}, {report}"


def _interrupted(folder: Path) -> Iterator[Check | Row]:
    files, text = folder / "files", "an extraction hangs"
    pool = run("pool", files, folder / "pool-c", interrupt_at=text)
    own = run("own", files, folder / "own-c", interrupt_at=text)
    words = []
    for each in (pool, own):
        seconds = each.ending.interrupted
        took = "not interrupted" if seconds is None else f"ends after {seconds:.1f} s"
        report = f"a report of {len(json.loads(each.report))} tasks" if each.report else "no report"
        words.append(f"{took}, {each.ending.orphans} processes left, {report}")
    yield Check(
        "Ctrl-C ends all processes, and there is a report",
        holds=pool.ending.code not in {0, None}
        and pool.ending.interrupted is not None
        and pool.ending.orphans == 0
        and bool(pool.report)
        and json.loads(pool.report) != [],
        detail=words[0],
    )
    yield "Ctrl-C", words[0], words[1]


def _full_disk(folder: Path, number: int) -> Iterator[Check | Note | Row]:
    files = folder / "files"
    files.mkdir(parents=True)
    inputs.make_inputs(files, number)
    whole = run("own", files, folder / "whole").files
    words = []
    for side in ("pool", "own"):
        with small_disk(folder / f"{side}-disk") as disk:
            if disk is None:
                yield Note("a full disk was not tried: only root can mount a small one")
                return
            found = run(side, files, disk, report=folder / f"{side}.json")
        full = found.report.count("No space left on device")
        same = len(whole) - len(found.lost(whole))
        words.append(
            f"status {found.ending.code}, {same} of {len(whole)} files and folders whole,"
            f" the report says so {full} times"
        )
        if side == "pool":
            yield Check(
                "a full disk is in the report, and the run ends well",
                holds=found.ending.code == 0 and full > 0 and found.ending.orphans == 0,
                detail=words[0],
            )
    yield "the disk is full", words[0], words[1]


@contextmanager
def small_disk(folder: Path) -> Iterator[Path | None]:
    """Mount a file system in memory that is soon full; None if that is not allowed here."""
    folder.mkdir(parents=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={_DISK_KB}k", "tmpfs", str(folder)]
    if os.getuid() or subprocess.run(command, check=False, capture_output=True).returncode:
        yield None
        return
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def make_faulty(files: Path, number: int, magic: str) -> None:
    """Make healthy files, and one with a chunk that goes wrong between others that do not."""
    files.mkdir(parents=True)
    inputs.make_inputs(files, number)
    stream = BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr(zipfile.ZipInfo("inside.txt"), "in a zip")
    rng = random.Random(5)
    parts = [
        rng.randbytes(300),
        gzip.compress(b"in a gzip" * 50, mtime=0),
        faulty_formats.chunk(magic, rng.randbytes(500)),
        faulty_formats.chunk("EVP-GOOD", b"from a plug-in"),
        stream.getvalue(),
    ]
    # it comes among the first, so that much is still to be done
    (files / "a-faulty.firmware").write_bytes(b"".join(parts))


def run(
    side: str,
    files: Path,
    output: Path,
    *options: str,
    faults: bool = True,
    limit: float = _LIMIT_SECONDS,
    interrupt_at: str | None = None,
    report: Path | None = None,
) -> Run:
    """Run a side in a new interpreter, with the plug-in of formats that go wrong."""
    output.mkdir(parents=True, exist_ok=True)
    report = report or output.with_name(f"{output.name}.json")
    arguments = [
        *("-m", "benchmarks.applications.unblob.once", side, str(files), str(output)),
        *("--plugins-path", faulty_formats.__file__, "--report", str(report), *options),
    ]
    before = os.environ.get("UNBLOB_FAULTS")
    os.environ["UNBLOB_FAULTS"] = "on" if faults else "off"
    try:
        ending = programs.run(arguments, limit, interrupt_at=interrupt_at)
    finally:
        if before is None:
            del os.environ["UNBLOB_FAULTS"]
        else:
            os.environ["UNBLOB_FAULTS"] = before
    if side == "pool":
        programs.show_if_it_hung(ending, f"unblob on the pool, {output.name}")
    text = report.read_text(encoding="utf-8") if report.exists() else ""
    return Run(ending, tree(output), text)

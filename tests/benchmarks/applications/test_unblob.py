"""unblob on the pool: the same files and report as by its own run, whatever goes wrong.

unblob sets the start method of this process when it is imported. So it runs in others.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.applications import programs
from benchmarks.applications.unblob import comparing, inputs

if importlib.util.find_spec("unblob") is None:
    pytest.skip("unblob is not installed", allow_module_level=True)
try:
    import magic  # noqa: F401 - of python-magic, which needs the library
except ImportError as error:
    pytest.skip(f"libmagic is missing: {error}", allow_module_level=True)

LIMIT_SECONDS = 120.0
FAULTY = "benchmarks/applications/unblob/faulty_formats.py"


def run_python(program: str) -> str:
    found = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert found.returncode == 0, found.stderr
    return found.stdout


def extract(side: str, files: Path, output: Path, *options: str) -> programs.Ending:
    output.mkdir()
    arguments = ["-m", "benchmarks.applications.unblob.once", side, str(files), str(output)]
    report = ("--report", str(output.with_suffix(".json")))
    return programs.run([*arguments, *report, *options], LIMIT_SECONDS)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    inputs.make_inputs(folder, 16)
    return folder


@pytest.fixture(scope="module")
def own(files: Path) -> Path:
    """unblob's own run of them."""
    output = files.parent / "own"
    assert extract("own", files, output).code == 0
    return output


def test_inputs_are_the_same_for_a_seed(
    files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert len({path.suffix for path in files.iterdir()}) > 5
    # these two hold the time at which they were made
    formats = [name for name in inputs.available() if name not in {"ext4", "lzo"}]
    monkeypatch.setattr(inputs, "available", lambda: formats)
    trees = []
    for name, seed in (("a", 22), ("b", 22), ("c", 23)):
        (tmp_path / name).mkdir()
        inputs.make_inputs(tmp_path / name, 16, seed)
        trees.append(comparing.tree(tmp_path / name))
    assert len(trees[0]) == 16
    assert trees[0] == trees[1] != trees[2]


def test_at_least_200_of_240_inputs_are_nested() -> None:
    assert sum(inputs.levels_of(place) > 1 for place in range(240)) >= 200


def test_most_inputs_are_extracted_to_their_second_level(own: Path) -> None:
    nested = {name.partition(".")[0] for name in comparing.tree(own) if name.count("_extract/") > 1}
    # some are damaged, or need a tool that is missing
    assert len(nested) >= 8


def test_what_is_not_extracted_yet_is_not_to_be_deleted() -> None:
    found = run_python(DELETING)
    assert "use ExtractedFileDeletionMode.NONE" in found


DELETING = """
from pathlib import Path
from unblob.processing import ExtractedFileDeletionMode, ExtractionConfig
from benchmarks.applications.unblob import handlers
for mode in ("ALL", "SELECTED"):
    config = ExtractionConfig(
        extract_root=Path(),
        randomness_depth=0,
        extracted_file_deletion=ExtractedFileDeletionMode[mode],
    )
    try:
        handlers.set_up(config)
    except ValueError as error:
        print(error)
    else:
        raise SystemExit(f"{mode} is accepted")
"""


def test_files_and_report_are_those_of_unblobs_own_run(
    files: Path, own: Path, tmp_path: Path
) -> None:
    output = tmp_path / "pool"
    ending = extract("pool", files, output)
    assert (ending.code, ending.output, ending.orphans) == (0, "", 0)
    assert comparing.difference(comparing.tree(own), comparing.tree(output)) == ""
    expected = comparing.findings(own.with_suffix(".json"), own)
    assert comparing.findings(output.with_suffix(".json"), output) == expected


def test_a_difference_is_found(tmp_path: Path) -> None:
    trees = []
    for name, content in (("a", "x"), ("b", "y")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(content, encoding="utf-8")
        trees.append(comparing.tree(tmp_path / name))
    assert comparing.difference(trees[0], trees[0]) == ""
    assert comparing.difference(trees[0], trees[1]) == "other content: 1, such as file"
    assert comparing.difference(trees[0], {}) == "missing: 1, such as file"
    assert comparing.difference({}, trees[0]) == "too much: 1, such as file"


def test_the_depth_is_the_same(files: Path, tmp_path: Path) -> None:
    trees = []
    for side in ("own", "pool"):
        assert extract(side, files, tmp_path / side, "--depth", "1").code == 0
        trees.append(comparing.tree(tmp_path / side))
    assert comparing.difference(*trees) == ""


# a worker's processor that knows no limit: that of the pool holds
LIMIT = """
import attrs, sys
from pathlib import Path
from benchmarks.applications.unblob import handlers, once, survey
from unblob.processing import ExtractionConfig
config = ExtractionConfig(
    extract_root=Path(sys.argv[2]), randomness_depth=0, max_depth=1, process_num=1
)
set_up = survey.set_up
survey.set_up = lambda config: set_up(attrs.evolve(config, max_depth=99))
found = survey.Survey()
survey.extract_files(config, [Path(sys.argv[1])], found)
print([(path, type(error).__name__) for path, error in found.errors.items()])
"""


def test_the_pools_limit_holds(tmp_path: Path) -> None:
    file, output = tmp_path / "file.tar.tar", tmp_path / "out"
    content = inputs._tar({"a.tar": inputs._tar({"b.tar": inputs._tar({"c": b"x" * 99})})})
    file.write_bytes(content)
    output.mkdir()
    program = f"import sys; sys.argv = ['', {str(file)!r}, {str(output)!r}]\n{LIMIT}"
    # the event that extracts the second archive is at the limit: its files are one too deep
    assert run_python(program) == "[((0, 0, 0), 'CascadeLimitError')]\n"


# --- what goes wrong ---

FAULT = """
import sys
from pathlib import Path
from benchmarks.applications.unblob.faults import make_faulty
make_faulty(Path(sys.argv[1]), 4, sys.argv[2])
"""


def faulty(folder: Path, magic_text: str) -> Path:
    files = folder / "files"
    run_python(f"import sys; sys.argv = ['', {str(files)!r}, {magic_text!r}]\n{FAULT}")
    return files


def failed_chunks(report: Path) -> dict[str, str]:
    """The exceptions of the plug-in's formats in the report, by the name of the format."""
    return {
        chunk["handler_name"]: error["exception"]
        for result in json.loads(report.read_text(encoding="utf-8"))
        for chunk in result["reports"]
        for error in chunk.get("extraction_reports", ())
        if chunk.get("handler_name", "").startswith("evproc") and "exception" in error
    }


@pytest.mark.parametrize(
    ("magic_text", "format_name", "error"),
    [
        ("EVP-KILL", "evproc_kill", "WorkerLostError"),
        ("EVP-HANG", "evproc_hang", "EventTimeoutError"),
    ],
)
def test_an_extraction_that_goes_wrong_costs_its_chunk_only(
    magic_text: str,
    format_name: str,
    error: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    files = faulty(tmp_path, magic_text)
    plugins = ("--plugins-path", FAULTY)
    monkeypatch.setenv("UNBLOB_FAULTS", "off")
    assert extract("own", files, tmp_path / "own", *plugins).code == 0
    monkeypatch.setenv("UNBLOB_FAULTS", "on")
    pool = tmp_path / "pool"
    ending = extract("pool", files, pool, *plugins, "--timeout", "2")
    assert (ending.code, ending.orphans) == (0, 0), ending.output
    expected, found = comparing.tree(tmp_path / "own"), comparing.tree(pool)
    assert all(found.get(name) == content for name, content in expected.items())
    assert {Path(name).name.split(".")[1] for name in found.keys() - expected.keys()} <= {
        format_name,
        f"{format_name}_extract",
    }
    ((name, text),) = failed_chunks(pool.with_suffix(".json")).items()
    assert name == format_name
    assert error in text
    # plug-ins take part
    assert any(each.endswith("evproc_good_extract/payload") for each in found)


def test_unblobs_own_run_ends_with_a_killed_extraction(tmp_path: Path) -> None:
    files = faulty(tmp_path, "EVP-KILL")
    ending = extract("own", files, tmp_path / "own", "--plugins-path", FAULTY)
    assert ending.code == 1
    assert "WorkerDiedError" in ending.output
    assert not (tmp_path / "own.json").exists()


TWICE = """
import sys
from pathlib import Path
from unblob.models import Task
from unblob.processing import ExtractionConfig
from benchmarks.applications.unblob import events, handlers
config = ExtractionConfig(extract_root=Path(sys.argv[2]), randomness_depth=0, process_num=1)
handlers.set_up(config)
by_format = handlers.format_handlers(config)
root = handlers.first_event(config, Task(blob_id="", path=Path(sys.argv[1]), depth=0))

def run(event, handler):
    emitted = []
    event.emit = emitted.append
    follow = handler(None, event)
    return follow, [type(report).__name__ for report in emitted[0].reports]

first, again = run(root, handlers.inspect), run(root, handlers.inspect)
assert first[1] == again[1] and len(first[0]) == len(again[0]) == 2, (first, again)
for event in again[0]:
    handler = by_format[event.piece.format]
    first, again = run(event, handler), run(event, handler)
    assert first[1] == again[1] == ["ChunkReport"], (first, again)
    assert [str(each.task.path) for each in first[0]] == [str(each.task.path) for each in again[0]]
    print(event.piece.format, [each.task.path.name for each in again[0]])
"""


def test_an_event_may_run_twice(tmp_path: Path) -> None:
    file, output = tmp_path / "two.image", tmp_path / "out"
    parts = [inputs._tar({"a": b"x" * 99}), b"\xff" * 512, inputs._cpio({"b": b"y" * 99})]
    file.write_bytes(b"".join(parts))
    output.mkdir()
    program = f"import sys; sys.argv = ['', {str(file)!r}, {str(output)!r}]\n{TWICE}"
    lines = run_python(program).splitlines()
    assert sorted(lines) == ["cpio_portable_ascii ['b']", "tar-2 ['a']"]


def test_ctrl_c_leaves_a_report_and_no_process(tmp_path: Path) -> None:
    files = faulty(tmp_path, "EVP-HANG")
    output = tmp_path / "pool"
    output.mkdir()
    report = output.with_suffix(".json")
    arguments = ["-m", "benchmarks.applications.unblob.once", "pool", str(files), str(output)]
    ending = programs.run(
        [*arguments, "--plugins-path", FAULTY, "--report", str(report)],
        LIMIT_SECONDS,
        interrupt_at="an extraction hangs",
    )
    assert "KeyboardInterrupt" in ending.output
    assert ending.orphans == 0
    # what was found in files that are over; nothing may be
    assert isinstance(json.loads(report.read_text(encoding="utf-8")), list)

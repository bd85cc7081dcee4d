"""`evproc_pool.testing.plugin`: how pytest finds it, its option and its fixtures."""

from __future__ import annotations

import os
import re
import sys
import tomllib
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import psutil
import pytest

from evproc import StopProcessing, want
from evproc_pool import PoolClosedError, PoolProcessor
from evproc_pool.testing import fixtures, plugin, worker_pids
from tests.support import actions
from tests.support.actions import Do
from tests.support.distributions import Distribution
from tests.support.helpers import ROOT, Gate

pytest_plugins = ["pytester"]

PLUGIN = "evproc_pool.testing.plugin"


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """A folder for tests, where pytest finds the plugin by name only."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    for name in ("PYTEST_ADDOPTS", "PYTEST_PLUGINS", "PYTEST_XDIST_WORKER_COUNT"):
        monkeypatch.delenv(name, raising=False)
    return pytester


def _run(project: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    return project.runpytest_subprocess("-p", PLUGIN, "-p", "no:cacheprovider", *arguments)


# --- how it is loaded ---


@pytest.fixture
def installed(project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """As `project`, where a distribution has the entry point of ``pyproject.toml``."""
    monkeypatch.delenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD")
    table = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    entries = {"pytest11": table["project"]["entry-points"]["pytest11"]}
    site = Distribution("like-evproc-pool", entry_points=entries).unpack(project.path / "site")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(site), str(ROOT)]))
    return project


_USES_IT = """
    def test_number(evproc_workers, pool_processor, assert_equal_outcomes):
        assert evproc_workers == 2
"""
_ASKS_FOR_IT = f"pytest_plugins = [{PLUGIN!r}]"


def test_an_installed_plugin_needs_no_declaration(installed: pytest.Pytester) -> None:
    installed.makepyfile(_USES_IT)
    installed.runpytest_subprocess("-p", "no:cacheprovider").assert_outcomes(passed=1)


@pytest.mark.parametrize("file", ["test_it", "conftest"])
@pytest.mark.parametrize("how", ["installed", "project"])
def test_declarations_of_old_go_on_to_work(
    file: str, how: str, request: pytest.FixtureRequest
) -> None:
    # also without the entry point, of which an older installation knows nothing
    folder: pytest.Pytester = request.getfixturevalue(how)
    files = {"test_it": _USES_IT, "conftest": ""}
    files[file] += f"\n    {_ASKS_FOR_IT}\n"
    folder.makepyfile(**files)
    done = folder.runpytest_subprocess("-p", "no:cacheprovider", "-W", "error")
    done.assert_outcomes(passed=1)
    if how == "installed" or file == "conftest":
        done = folder.runpytest_subprocess("-p", "no:cacheprovider", "--evproc-workers=3")
        done.stdout.fnmatch_lines(["E*assert 3 == 2"])


def test_an_installed_plugin_can_be_named_and_left_out(installed: pytest.Pytester) -> None:
    installed.makepyfile(_USES_IT)
    _run(installed).assert_outcomes(passed=1)
    done = installed.runpytest_subprocess("-p", f"no:{PLUGIN}")
    done.stdout.fnmatch_lines(["*fixture 'evproc_workers' not found"])


def test_pytest_within_a_program_that_has_imported_the_packages_does_not_warn(
    installed: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    # pytest rewrites assertions in all that the distribution of a plugin lists
    site = installed.path / "site"
    lines = ""
    for package in ("evproc", "evproc_pool"):
        (site / package).mkdir()
        (site / package / "__init__.py").touch()
        lines += f"{package}/__init__.py,,\n"
    next(site.glob("*.dist-info")).joinpath("RECORD").write_text(lines, "utf-8")
    # the empty packages are not imported
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(site)]))
    installed.makepyfile(
        _USES_IT,
        program="""
            import evproc_pool.pool, pytest, sys
            sys.exit(pytest.main(["-W", "error", "-p", "no:cacheprovider"]))
        """,
    )
    done = installed.run(sys.executable, "program.py")
    done.assert_outcomes(passed=1)


def test_a_project_that_does_not_use_it_imports_next_to_nothing(project: pytest.Pytester) -> None:
    project.makepyfile(
        """
        import sys

        def test_modules():
            ours = {name for name in sys.modules if name.startswith("evproc_pool")}
            names = "", ".errors", ".testing", ".testing.plugin"
            assert ours == {"evproc_pool" + name for name in names}
            others = {"asyncio", "multiprocessing", "cloudpickle"}.intersection(sys.modules)
            print("others:", *sorted(others))
        """
    )
    done = _run(project, "-s")
    done.assert_outcomes(passed=1)
    # pytest imports `pdb`, and that imports `asyncio` from Python 3.14 on
    done.stdout.fnmatch_lines(["*others: asyncio" if sys.version_info >= (3, 14) else "*others:"])


def test_the_help_says_what_the_option_is_about(project: pytest.Pytester) -> None:
    text = " ".join(_run(project, "--help").stdout.str().split())
    assert "tests of evproc handlers: --evproc-workers=N worker processes of each pool" in text
    assert "evproc_workers (int): the default of --evproc-workers" in text


def test_the_fixtures_are_described(project: pytest.Pytester) -> None:
    text = _run(project, "--fixtures").stdout.str()
    assert f"fixtures defined from {PLUGIN}" in text
    for name, first in {
        "evproc_workers [session scope]": "The number of workers",
        "pool_processor": "Make pools that are closed when the test ends",
        "assert_equal_outcomes": "Assert that handlers do the same in a pool",
    }.items():
        assert re.search(rf"(?m)^{re.escape(name)} -- .*plugin\.py:\d+\n    {first}", text)


# --- the number ---


_SHOWS = """
    def test_number(evproc_workers):
        print("workers:", evproc_workers)
"""


@pytest.mark.parametrize(
    ("arguments", "files", "number"),
    [
        ([], {}, 2),
        (["--evproc-workers=0"], {}, 0),
        (["--evproc-workers", "7"], {}, 7),
        ([], {"pyproject.toml": "[tool.pytest.ini_options]\nevproc_workers = 0"}, 0),
        ([], {"pyproject.toml": "[tool.pytest.ini_options]\nevproc_workers = '3'"}, 3),
        ([], {"pyproject.toml": "[tool.pytest]\nevproc_workers = 3"}, 3),
        ([], {"pytest.ini": "[pytest]\nevproc_workers = 3"}, 3),
        (["--evproc-workers=0"], {"pytest.ini": "[pytest]\nevproc_workers = 3"}, 0),
        (["--evproc-workers=4"], {"pytest.ini": "[pytest]\nevproc_workers = 0"}, 4),
        (["-o", "evproc_workers=0"], {"pytest.ini": "[pytest]\nevproc_workers = 3"}, 0),
    ],
    ids=str,
)
def test_the_option_comes_before_the_setting(
    arguments: list[str], files: dict[str, str], number: int, project: pytest.Pytester
) -> None:
    project.makepyfile(_SHOWS)
    for name, text in files.items():
        (project.path / name).write_text(text, "utf-8")
    done = _run(project, "-s", *arguments)
    done.stdout.fnmatch_lines([f"*workers: {number}"])


@pytest.mark.parametrize(
    ("arguments", "file", "text"),
    [
        (["--evproc-workers=many"], "", "--evproc-workers is * or 0 for none, not 'many'"),
        (["--evproc-workers=-1"], "", "--evproc-workers is * or 0 for none, not '-1'"),
        (["--evproc-workers=1.5"], "", "--evproc-workers is * or 0 for none, not '1.5'"),
        (["--evproc-workers="], "", "--evproc-workers is * or 0 for none, not ''"),
        ([], "evproc_workers = 'many'", "the setting evproc_workers is * or 0 for none*"),
        ([], "evproc_workers = -3", "the setting evproc_workers is * or 0 for none, not -3"),
        ([], "evproc_workers = true", "the setting evproc_workers is * or 0 for none*"),
    ],
    ids=str,
)
def test_a_bad_number_is_a_sentence(
    arguments: list[str], file: str, text: str, project: pytest.Pytester
) -> None:
    project.makepyfile(_SHOWS)
    project.makepyprojecttoml(f"[tool.pytest.ini_options]\n{file}")
    done = _run(project, *arguments)
    assert done.ret == pytest.ExitCode.USAGE_ERROR
    (line,) = filter(None, done.errlines)
    pytest.LineMatcher([line]).fnmatch_lines([f"ERROR: {text}"])


def test_the_default_is_less_where_xdist_has_many_processes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(fixtures, "usable_cpus", lambda: 8)
    numbers = []
    for count in (None, "1", "4", "5", "8", "16", "what"):
        if count is not None:
            monkeypatch.setenv("PYTEST_XDIST_WORKER_COUNT", count)
        else:
            monkeypatch.delenv("PYTEST_XDIST_WORKER_COUNT", raising=False)
        numbers.append(fixtures.default_workers())
    assert numbers == [2, 2, 2, 1, 1, 1, 2]
    monkeypatch.setattr(fixtures, "usable_cpus", lambda: 1)
    monkeypatch.delenv("PYTEST_XDIST_WORKER_COUNT")
    assert fixtures.default_workers() == 2


# --- the fixtures ---

_APP = """
    import os
    import evproc
    from pathlib import Path

    class Order(evproc.Event):
        name = "order"

        def __init__(self, number=0):
            super().__init__()
            self.number = number

    def check(proc, ev):
        with open("pids", "a") as file:
            print(os.getpid(), file=file)
        raise evproc.StopProcessing(ev.number)

    def differ(proc, ev):
        raise evproc.StopProcessing(os.getpid())

    def pids():
        return set(map(int, Path("pids").read_text().split()))
"""

_TESTS = """
    import os
    import pytest
    from app import Order, check, differ, pids
    from evproc_pool import PoolProcessor

    @pytest.fixture(autouse=True)
    def begin(evproc_workers):
        open("pids", "w").close()

    @pytest.mark.parametrize("options", [{}, {"workers": 3}])
    def test_comparison(assert_equal_outcomes, evproc_workers, options):
        orders = [Order(number) for number in range(30)]
        assert_equal_outcomes([check], orders, seeds=[1], **options)
        assert (pids() == {os.getpid()}) == (evproc_workers == 0)

    @pytest.mark.parametrize("options", [{}, {"workers": 3}])
    def test_pool(pool_processor, evproc_workers, options):
        pool = pool_processor([check], **options, key=lambda ev: ev.number)
        assert isinstance(pool, PoolProcessor)
        assert pool.workers == (options.get("workers", evproc_workers) if evproc_workers else 0)
        assert pool.process_many([Order(1), Order(2)]) == [1, 2]
        assert (pids() == {os.getpid()}) == (evproc_workers == 0)
"""


@pytest.mark.parametrize("number", [0, 1])
def test_the_fixtures_take_the_number_and_zero_holds_for_all(
    number: int, project: pytest.Pytester
) -> None:
    project.makepyfile(app=_APP, test_app=_TESTS)
    _run(project, f"--evproc-workers={number}").assert_outcomes(passed=4)


@pytest.mark.parametrize("number", [0, 1])
def test_a_comparison_without_seeds_takes_workers(number: int, project: pytest.Pytester) -> None:
    test = """
        from app import Order, differ
        def test_orders(assert_equal_outcomes):
            assert_equal_outcomes([differ], [Order()], workers=2, seeds=iter(()))
    """
    project.makepyfile(app=_APP, test_app=test)
    done = _run(project, f"--evproc-workers={number}")
    done.assert_outcomes(failed=number, skipped=1 - number)


def test_a_failed_comparison_says_what_differs_and_how_to_run_it_again(
    project: pytest.Pytester,
) -> None:
    project.makepyfile(
        app=_APP,
        test_app="""
            from app import Order, differ
            def test_orders(assert_equal_outcomes):
                assert_equal_outcomes([differ], [Order()])
        """,
    )
    done = _run(project, "--evproc-workers=3")
    done.stdout.fnmatch_lines(
        [
            "E*AssertionError: event 0 ('order' (app.Order)) of 1 ends differently",
            "E*  with Processor: stops with *",
            "E*  with 3 worker processes: stops with *",
            "E*  pools that differ: 3 worker processes; that do not: seed 0, seed 1, *",
            "E*  to run it again: assert_equal_outcomes(..., workers=3, seeds=())*",
            "",
            "test_app.py:3: AssertionError",  # and no line of ours
        ]
    )
    _run(project, "--evproc-workers=0").assert_outcomes(passed=1)


def test_a_module_may_have_a_pool_of_its_own_and_run_with_and_without_workers(
    project: pytest.Pytester,
) -> None:
    project.makepyfile(
        app=_APP,
        test_app="""
            import pytest
            from app import Order, check
            from evproc_pool import PoolProcessor

            @pytest.fixture(scope="module", params=[0, 1])
            def evproc_workers(request):
                return request.param

            @pytest.fixture(scope="module")
            def pool(evproc_workers):
                with PoolProcessor(workers=evproc_workers) as pool:
                    pool.register(check)
                    yield pool

            def test_order(pool, pool_processor, evproc_workers):
                assert pool.workers == pool_processor().workers == evproc_workers
                assert pool.process(Order(5)) == 5
        """,
    )
    _run(project).assert_outcomes(passed=2)


# --- the pools ---


@want("do")
def stop(proc: Any, ev: Do) -> None:
    raise StopProcessing(os.getpid())


def test_pools_are_closed_whatever_happens() -> None:
    pids = []
    with pytest.raises(LookupError, match="the test"), fixtures.PoolMaker(1) as make:  # noqa: PT012
        for _ in range(2):
            pool = make([stop])
            pids += [pool.process(Do()), *worker_pids(pool)]
        pool.close()
        pool.close()
        raise LookupError("the test")
    assert not any(map(psutil.pid_exists, pids))


def test_what_was_submitted_is_finished() -> None:
    with fixtures.PoolMaker(1) as make:
        futures = [make([stop]).submit(Do()) for _ in range(2)]
    assert all(future.result(0) for future in futures)


def test_a_handler_without_end_is_killed(monkeypatch: pytest.MonkeyPatch, gate: Gate) -> None:
    monkeypatch.setattr(fixtures, "_CLOSE_SECONDS", 0.0)
    with fixtures.PoolMaker(1) as make:
        hung, other = make([actions.act]), make([stop])
        future = hung.submit(Do("wait_at", gate.address))
        pid = gate.arrival().pid
        assert other.process(Do()) in worker_pids(other)
    assert isinstance(future.exception(), PoolClosedError)
    assert not psutil.pid_exists(pid)


def test_ctrl_c_does_not_wait_for_handlers(project: pytest.Pytester) -> None:
    project.makepyfile(
        app=_APP,
        test_app="""
            from app import Order
            from evproc_pool.testing import fixtures, hang

            def wait(proc, ev):
                hang(ev)

            def test_it(pool_processor):
                fixtures._CLOSE_SECONDS = 1000
                pool_processor([wait]).submit(Order())
                raise KeyboardInterrupt
        """,
    )
    done = _run(project)
    assert done.ret == pytest.ExitCode.INTERRUPTED
    # and the next run of the same process has forgotten it
    plugin._Run.is_interrupted = True
    plugin.pytest_configure(cast("Any", SimpleNamespace(getoption=lambda *_: "1")))
    assert not plugin._Run.is_interrupted


def test_a_pool_whose_set_up_fails_is_closed() -> None:
    pools: list[PoolProcessor] = []

    def set_up(pool: PoolProcessor) -> None:
        pools.append(pool)
        pool.register(stop)
        pool.process(Do())
        raise LookupError("set up")

    with pytest.raises(LookupError, match="set up"), fixtures.PoolMaker(1) as make:
        make(set_up)
    with pytest.raises(PoolClosedError):
        pools[0].process(Do())


def test_handlers_may_be_registered_later_or_be_a_group(tmp_path: Path) -> None:
    group = Distribution(
        "made-for-pools",
        {"made_for_pools": "def a(proc, ev): ...\n"},
        {"made.for.pools": {"one": "made_for_pools:a"}},
    )
    sys.path.insert(0, str(group.unpack(tmp_path)))
    try:
        with fixtures.PoolMaker(0) as make:
            pool = make()
            pool.register(stop)
            assert pool.process(Do()) == os.getpid()
            assert list(make("made.for.pools").nodes) == ["one"]
    finally:
        sys.path.remove(str(tmp_path))


def test_a_handler_in_place_of_a_list_is_refused_before_there_is_a_pool() -> None:
    with fixtures.PoolMaker(1) as make, pytest.raises(TypeError, match="goes into a list"):
        make(stop)  # type: ignore[arg-type]  # this is the mistake

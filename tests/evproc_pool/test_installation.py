"""`import evproc_pool` where another distribution has replaced or removed the package `evproc`."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from evproc_pool.installation import _REQUIREMENT

ROOT = Path(__file__).parents[2]


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder with `evproc_pool`, and a plug-in that requires the wrong distribution."""
    shutil.copytree(ROOT / "evproc_pool", tmp_path / "evproc_pool")
    for name, requirement in (("app-billing", "evproc (>=0.2)"), ("other", "evproc-pool")):
        info = tmp_path / f"{name}-1.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\nRequires-Dist: {requirement}\n"
        )
    (tmp_path / "evproc").mkdir()
    return tmp_path


def failure(site: Path) -> str:
    """The last line that the import prints; without `site`, which may know our own `evproc`."""
    done = subprocess.run(
        [sys.executable, "-S", "-c", "import evproc_pool"],
        cwd=site,
        env={"PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    return done.stderr.splitlines()[-1]


def test_files_of_0_2_0_over_ours_are_an_error_that_says_how_to_mend_it(site: Path) -> None:
    file = site / "evproc" / "__init__.py"
    file.write_text("from evproc.exc import StopProcessing\n")
    file.with_name("exc.py").write_text("class StopProcessing(Exception): pass\n")
    text = failure(site)
    assert text.startswith(f"ImportError: the package evproc ({file}) is not the one of")
    assert "`pip uninstall evproc`, then `pip install --force-reinstall --no-deps evproc-" in text
    assert "depend on `evproc` (app-billing) must depend on `evproc-pool` instead" in text


def test_files_that_were_uninstalled_with_0_2_0_are_the_same_error(site: Path) -> None:
    shutil.copy(ROOT / "evproc" / "version.py", site / "evproc")  # 0.2.0 has no such file
    assert "the package evproc (which has lost its files) is not" in failure(site)


def test_files_of_0_2_0_that_lack_their_own_requirements_are_the_same_error(site: Path) -> None:
    file = site / "evproc" / "__init__.py"
    file.write_text("from evproc.decorator import want\n")
    file.with_name("decorator.py").write_text("import six\n")
    assert f"the package evproc ({file}) is not the one of evproc-pool" in failure(site)


def test_a_package_that_is_gone_is_the_same_error(site: Path) -> None:
    (site / "evproc").rmdir()
    assert "the package evproc (which has lost its files) is not" in failure(site)


def test_another_import_that_fails_is_not(site: Path) -> None:
    (site / "evproc").rmdir()
    shutil.copytree(ROOT / "evproc", site / "evproc")
    (site / "evproc" / "exc.py").write_text("import no_such_module\n")
    # newer Pythons add a hint
    assert failure(site).startswith("ModuleNotFoundError: No module named 'no_such_module'")


@pytest.mark.parametrize(
    "requirement",
    ["evproc", "evproc==0.2.0", "EvProc >0.1", "evproc[x]", "evproc ; extra == 'x'", "evproc(>0)"],
)
def test_a_requirement_of_the_other_distribution_is_found(requirement: str) -> None:
    assert _REQUIREMENT.match(requirement)


@pytest.mark.parametrize("requirement", ["evproc-pool", "evproc_pool>1", "evproc.x", "evprocs"])
def test_a_requirement_of_a_longer_name_is_not(requirement: str) -> None:
    assert not _REQUIREMENT.match(requirement)

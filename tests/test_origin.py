"""A user's own module with the name of one of our packages becomes one clear ImportError."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

HOME = Path(__file__).resolve().parent.parent


def import_trailmark(folder: Path, statement: str = "import trailmark") -> subprocess.CompletedProcess[str]:
    """Run a script that lies in ``folder``, with our packages after it on the path, as for an installed trailmark."""
    script = folder / "script_of_a_user.py"
    script.write_text(statement)
    # -P off, -I off: the script's own folder comes first, exactly as for a user.
    return subprocess.run(
        [sys.executable, "-B", script], env={"PYTHONPATH": str(HOME)}, capture_output=True, text=True, check=False, timeout=60
    )


@pytest.mark.parametrize("name", ["engine", "checkpoint_stores", "reducers"])
@pytest.mark.parametrize("form", ["{}.py", "{}/__init__.py"], ids=["module", "package"])
def test_a_module_that_hides_ours_is_one_import_error_that_names_the_file(tmp_path: Path, name: str, form: str) -> None:
    theirs = tmp_path / form.format(name)
    theirs.parent.mkdir(exist_ok=True)
    theirs.write_text("print('their code ran')")

    done = import_trailmark(tmp_path)

    assert done.returncode == 1
    assert done.stdout == ""
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("ImportError: ")
    assert str(theirs) in last
    assert repr(name) in last
    assert done.stderr.count("Error: ") == 1


def test_a_module_that_was_imported_before_trailmark_is_named_too(tmp_path: Path) -> None:
    (tmp_path / "engine.py").write_text("")

    done = import_trailmark(tmp_path, "import engine, sys\nsys.path.pop(0)\nimport trailmark")

    assert str(tmp_path / "engine.py") in done.stderr.strip().splitlines()[-1]


def test_a_script_with_the_name_of_our_package_is_named(tmp_path: Path) -> None:
    script = tmp_path / "engine.py"
    script.write_text("import trailmark")

    done = subprocess.run([sys.executable, script], env={"PYTHONPATH": str(HOME)}, capture_output=True, text=True, check=False, timeout=60)

    assert str(script) in done.stderr.strip().splitlines()[-1]


def test_a_plain_folder_with_such_a_name_hides_nothing(tmp_path: Path) -> None:
    (tmp_path / "engine").mkdir()
    (tmp_path / "engine" / "notes.txt").write_text("a folder without __init__.py gives way to a package")

    done = import_trailmark(tmp_path)

    assert (done.returncode, done.stderr) == (0, "")


def test_an_incomplete_installation_is_said_to_be_one(tmp_path: Path) -> None:
    alone = tmp_path / "site"
    (alone / "trailmark").mkdir(parents=True)
    (alone / "trailmark" / "_origin.py").write_text((HOME / "trailmark" / "_origin.py").read_text())
    program = "from trailmark._origin import guard; guard()"

    done = subprocess.run([sys.executable, "-S", "-c", program], cwd=alone, capture_output=True, text=True, check=False, timeout=60)

    assert "'engine' is missing" in done.stderr.strip().splitlines()[-1]

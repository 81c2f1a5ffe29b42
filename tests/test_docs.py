"""The documentation is true: what it shows runs, what it says comes out, its links lead somewhere, its reference is current."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import trailmark
from checkpoint_stores.sql.schema import metadata
from trailmark.testing import PostgresServer

ROOT = Path(trailmark.__file__).resolve().parent.parent
DOCS = ROOT / "docs"
WRITTEN = sorted([
    ROOT / "README.md", DOCS / "README.md", DOCS / "architecture.md", *DOCS.glob("tutorial/*.md"), *DOCS.glob("howto/*.md"), *DOCS.glob("explain/*.md"),
])  # fmt: skip
"""Pages that people write; those in docs/reference are made."""
EVERY_PAGE = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *ROOT.glob("examples/*.md"), *DOCS.rglob("*.md")])


def loaded(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"docs_{name}", DOCS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


run_page = loaded("run_page")
build_reference = loaded("build_reference")
build_figures = loaded("build_figures")
build_schema = loaded("build_schema")


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


# --- what is shown runs -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path", [path for path in WRITTEN if re.search(r"^```(python|console)", path.read_text("utf-8"), re.MULTILINE)], ids=named
)
def test_a_page_shows_what_really_happens(path: Path, postgres_server: PostgresServer) -> None:
    # Pages that start a server of their own are lent ours.
    environment = {**os.environ, "TRAILMARK_TEST_POSTGRES_URL": postgres_server.url}
    ended = subprocess.run(
        [sys.executable, str(DOCS / "run_page.py"), str(path)], capture_output=True, text=True, timeout=300, env=environment, check=False
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_a_page_that_says_something_else_than_what_comes_out_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("```python\nprint(1)\n```\n\n```text\n2\n```\n\n```console\n$ echo a\na\n$ (exit 3)\n$ echo $?\n4\n```\n", "utf-8")
    findings = run_page.run(page)
    assert [(finding.said, finding.came) for finding in findings] == [
        ("2\n", "1\n"),
        ("$ echo a\na\n$ (exit 3)\n$ echo $?\n4\n", "$ echo a\na\n$ (exit 3)\n$ echo $?\n3\n"),
    ]
    repaired = run_page.rewritten(page.read_text("utf-8"), findings)
    page.write_text(repaired, "utf-8")
    assert run_page.run(page) == []


def test_only_ids_times_durations_and_digests_may_differ() -> None:
    same = run_page.is_same
    assert same("run 01a1fd42-c851-7dc3-9dc6-68b24c054827  3 ms", "run  01a1fd43-2313-78f0-9165-01881163a0ba 12.5 ms")
    assert same("at 2026-11-21 08:39:34, fbf115b62f816a0a", "at 2027-01-01 00:00:00, 0123456789ab")
    assert same("first ... last", "first\nand\nlast")
    assert not same("3 steps", "4 steps")
    assert not same("run 01a1fd42-c851-7dc3-9dc6-68b24c054827", "run")
    assert not same("", "something")


# --- links ------------------------------------------------------------------------------------------------------------


def anchors_of(path: Path) -> set[str]:
    """What GitHub makes of a page's headings."""
    text = re.sub(r"^```.*?^```$", "", path.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-") for heading in headings}


def links_of(path: Path) -> list[str]:
    text = re.sub(r"^```.*?^```$", "", path.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    return [link for link in re.findall(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)", re.sub(r"`[^`\n]*`", "", text)) if "://" not in link]


@pytest.mark.parametrize("path", EVERY_PAGE, ids=named)
def test_every_link_leads_somewhere(path: Path) -> None:
    for link in links_of(path):
        place, _, anchor = link.partition("#")
        target = (path.parent / place).resolve() if place else path
        assert target.exists(), f"{named(path)}: {link} leads nowhere"
        if anchor:
            assert anchor in anchors_of(target), f"{named(path)}: {link}: there is no such heading"


def test_the_index_leads_to_every_page() -> None:
    reached = {(DOCS / link.partition("#")[0]).resolve() for link in links_of(DOCS / "README.md")}
    decisions = set(DOCS.glob("decisions/0*.md"))  # these have an index of their own
    assert set(DOCS.rglob("*.md")) - decisions - {DOCS / "README.md"} <= reached


def test_the_index_of_the_decisions_leads_to_each_of_them() -> None:
    reached = {link for link in links_of(DOCS / "decisions" / "README.md") if link.startswith("0")}
    assert reached == {path.name for path in DOCS.glob("decisions/0*.md")}


# --- the reference ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(build_reference.PAGES))
def test_a_page_of_the_reference_is_what_the_code_says_now(name: str) -> None:
    assert (DOCS / "reference" / name).read_text("utf-8") == build_reference.page(name), "type make docs"


def test_every_page_of_the_reference_is_made() -> None:
    assert {path.name for path in (DOCS / "reference").glob("*.md")} == {*build_reference.PAGES, "features.md", "figures.md"}


def test_the_page_of_figures_is_what_is_kept() -> None:
    assert (DOCS / "reference" / "figures.md").read_text("utf-8") == build_figures.page(), "type make docs"


def test_every_curve_that_is_kept_has_its_picture() -> None:
    drawn = {path.name for path in (DOCS / "explain" / "pictures").glob("*.svg")}
    assert drawn == set(re.findall(r"pictures/([\w-]+\.svg)", build_figures.page()))


@pytest.mark.parametrize("name", build_schema.FILES)
def test_what_is_known_of_the_tables_without_sqlalchemy_is_what_the_schema_says(name: str) -> None:
    assert (build_schema.SQL / name).read_text("utf-8") == build_schema.FILES[name](), "type make docs"


@pytest.mark.parametrize("module", build_reference.MODULES, ids=lambda module: module.__name__)
def test_every_public_name_is_in_the_reference(module: ModuleType) -> None:
    known = anchors_of(DOCS / "reference" / "api.md") | anchors_of(DOCS / "reference" / "errors.md")
    assert [name for name in module.__all__ if name.lower() not in known] == []


def test_every_error_says_when_it_is_raised_and_who_must_act() -> None:
    errors = build_reference.public_errors()
    assert len(errors) > 50
    for kind in errors:
        assert kind.__doc__, kind
        if kind not in (trailmark.TrailmarkError, trailmark.StoreError):
            assert build_reference.who_must_act(kind), kind


def test_every_table_and_column_says_what_it_holds() -> None:
    silent = [column for table in metadata.sorted_tables for column in table.columns if not column.doc]
    assert silent == []
    assert [table.name for table in metadata.sorted_tables if not table.info.get("doc")] == []


def test_every_kind_of_checkpoint_that_is_written_is_explained() -> None:
    code = "".join(
        (ROOT / "engine" / name).read_text("utf-8") for name in ("decide.py", "leaving.py", "resolving.py", "operations.py", "executor.py")
    )
    written = (
        set(re.findall(r'Draft\(\s*"(\w+)"', code))
        | set(re.findall(r'\bleave\([^"]*"(\w+)"', code))
        | set(re.findall(r'state\.step, "(\w+)"', code))
    )
    assert {"step", "failure", "barrier", "join", "fork"} <= written
    assert written <= set(build_reference.KINDS)


def test_every_status_is_explained_or_said_to_be_reserved() -> None:
    page = (DOCS / "reference" / "statuses.md").read_text("utf-8")
    assert [status for status in build_reference.get_args(build_reference.RunStatus) if f"`{status}`" not in page] == []


# --- the front page ---------------------------------------------------------------------------------------------------


def test_the_front_page_names_the_two_commands() -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    makefile = (ROOT / "Makefile").read_text("utf-8")
    for command in ("test", "demo"):
        assert re.search(rf"^make {command}\b", readme, re.MULTILINE)
        assert re.search(rf"^{command}:", makefile, re.MULTILINE)

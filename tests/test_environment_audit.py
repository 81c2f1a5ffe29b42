"""The environment audit of the demo, over small site directories made of real `.dist-info` folders."""

import base64
import hashlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any

import pytest

from trailmark import Decision, GraphExecutor, InvalidDecisionError, RunFailedError
from trailmark.checkpoint_stores import MemoryCheckpointStore
from trailmark.demo import audit_checks, audit_report, environment_audit
from trailmark.demo.audit_checks import Installed, check_dependencies, check_files, finding, read_sites, risk_score


class Site:
    """A site directory, filled the way an installer fills one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(exist_ok=True)

    def install(self, name: str, version: str = "1.0", *, headers: Iterable[str] = (), files: dict[str, str] | None = None) -> Path:
        """Write a package, its METADATA and its RECORD; return the metadata folder."""
        info = self.folder / f"{name}-{version}.dist-info"
        contents = {f"{name}/{path}": text for path, text in (files or {"__init__.py": f"name = {name!r}\n"}).items()}
        lines = [f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}", *headers]
        contents[f"{info.name}/METADATA"] = "\n".join(lines) + "\n\nA description.\n"
        record = []
        for path, text in contents.items():
            place = self.folder / path
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(text.encode())
            digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
            record.append(f"{path},sha256={digest},{len(text.encode())}")
        record.append(f"{info.name}/RECORD,,")
        (info / "RECORD").write_text("\n".join(record) + "\n", encoding="utf-8")
        return info

    def read(self) -> tuple[list[Installed], dict[str, str]]:
        return read_sites([str(self.folder)])

    def one(self, name: str) -> Installed:
        return next(found for found in self.read()[0] if found["name"] == name)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path / "site-packages")


# --- reading ----------------------------------------------------------------------------------------------------------


def test_distributions_are_read_in_the_order_of_their_names(site: Site) -> None:
    for name in ("zeta", "Alpha", "beta_two"):
        site.install(name, "2.0")
    installed, unreadable = site.read()
    assert [(one["name"], one["version"]) for one in installed] == [("Alpha", "2.0"), ("beta_two", "2.0"), ("zeta", "2.0")]
    assert unreadable == {}


def test_metadata_that_is_not_text_is_unreadable_and_spoils_no_other(site: Site) -> None:
    site.install("good")
    (site.install("broken") / "METADATA").write_bytes(b"Name: broken\xff\xfe\n")
    installed, unreadable = site.read()
    assert [one["name"] for one in installed] == ["good"]
    assert list(unreadable) == ["broken-1.0.dist-info"]
    assert "utf-8" in unreadable["broken-1.0.dist-info"]


@pytest.mark.parametrize(
    ("file", "content", "reason"),
    [
        ("METADATA", b"Version: 1.0\n", "no Name"),
        ("METADATA", b"", "no METADATA"),
        ("RECORD", b"\xff,,\n", "utf-8"),
        ("RECORD", b"one-column-only\n", "line 1 of its RECORD"),
        ("RECORD", b"a/b.py,,\na/\0.py,,\n", "line 2 of its RECORD"),
    ],
)
def test_what_cannot_be_read_is_reported_with_the_reason(site: Site, file: str, content: bytes, reason: str) -> None:
    (site.install("broken") / file).write_bytes(content)
    installed, unreadable = site.read()
    assert installed == []
    assert reason in unreadable["broken-1.0.dist-info"]


def test_an_old_egg_info_file_is_read_and_its_files_cannot_be_verified(site: Site) -> None:
    (site.folder / "old-0.9.egg-info").write_text("Metadata-Version: 1.1\nName: old\nVersion: 0.9\n", encoding="utf-8")
    old = site.one("old")
    assert check_files(old).findings == [finding("no-record", "medium", "old", "has no RECORD: its files cannot be verified")]
    assert audit_checks.size_on_disk(old) is None


def test_a_site_directory_that_does_not_exist_is_an_error_and_no_empty_environment(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_sites([str(tmp_path / "nowhere")])


def test_this_interpreters_own_environment_can_be_read() -> None:
    installed, _ = read_sites(audit_checks.default_sites())
    assert "pytest" in {one["name"] for one in installed}


# --- files ------------------------------------------------------------------------------------------------------------


def test_untouched_files_are_verified_and_the_record_itself_is_unhashed(site: Site) -> None:
    site.install("good", files={"__init__.py": "", "big.py": "x = 1\n" * 10_000})
    checked = check_files(site.one("good"))
    assert checked.findings == []
    assert checked.counts == {"verified": 3, "unhashed": 1, "tampered": 0, "missing": 0, "unreadable": 0}


def test_one_changed_byte_is_a_finding_of_high_severity_that_names_the_file(site: Site) -> None:
    site.install("victim", files={"__init__.py": "", "code.py": "safe = True\n"})
    (site.folder / "victim/code.py").write_text("safe = Fals\n", encoding="utf-8")
    checked = check_files(site.one("victim"))
    assert checked.counts["tampered"] == 1
    assert [(found["id"], found["severity"]) for found in checked.findings] == [("tampered:victim", "high")]
    assert "victim/code.py" in checked.findings[0]["message"]
    assert "__init__" not in checked.findings[0]["message"]


def test_many_missing_files_make_one_finding_that_names_a_few_and_counts_the_rest(site: Site) -> None:
    site.install("gone", files={f"part{number}.py": "" for number in range(9)})
    for number in range(8):
        (site.folder / f"gone/part{number}.py").unlink()
    checked = check_files(site.one("gone"))
    assert checked.counts["missing"] == 8
    assert [found["id"] for found in checked.findings] == ["missing:gone"]
    assert checked.findings[0]["message"].endswith("gone/part4.py and 3 more")


def test_byte_code_that_was_never_hashed_may_be_deleted(site: Site) -> None:
    info = site.install("good")
    with (info / "RECORD").open("a", encoding="utf-8") as record:
        record.write("good/__pycache__/__init__.cpython-311.pyc,,\n")
    checked = check_files(site.one("good"))
    assert checked.findings == []
    assert checked.counts["unhashed"] == 2


def test_an_untrusted_hash_verifies_nothing(site: Site) -> None:
    info = site.install("weak")
    (info / "RECORD").write_text("weak/__init__.py,md5=1B2M2Y8AsgTpgAmY7PhCfg,0\n", encoding="utf-8")
    assert check_files(site.one("weak")).counts["unhashed"] == 1


def test_something_that_is_no_regular_file_is_missing_and_is_not_read(site: Site) -> None:
    info = site.install("odd")
    (info / "RECORD").write_text("/dev/zero,sha256=abc,0\nodd,sha256=abc,0\n", encoding="utf-8")
    assert check_files(site.one("odd")).counts["missing"] == 2


def test_the_size_is_that_of_the_files_listed(site: Site) -> None:
    info = site.install("good", files={"a.py": "12345", "b.py": "äö"})
    expected = 5 + 4 + (info / "METADATA").stat().st_size + (info / "RECORD").stat().st_size
    assert audit_checks.size_on_disk(site.one("good")) == expected


# --- licences ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "licence"),
    [
        (["License-Expression: MIT OR Apache-2.0", "License: something else"], "MIT OR Apache-2.0"),
        (["License: BSD", "Classifier: License :: OSI Approved :: MIT License"], "BSD"),
        (["License: UNKNOWN", "Classifier: License :: OSI Approved :: MIT License"], "MIT License"),
        (["License: The whole text", "        over two lines", "Classifier: License :: OSI Approved :: ISC"], "ISC"),
        (["Classifier: License :: OSI Approved :: B", "Classifier: License :: OSI Approved :: A"], "A / B"),
        ([], ""),
    ],
)
def test_the_licence_is_what_the_newest_way_of_declaring_says(site: Site, headers: list[str], licence: str) -> None:
    site.install("some", headers=headers)
    assert audit_checks.licence_of(site.one("some")) == licence


# --- dependencies -----------------------------------------------------------------------------------------------------


def dependency_messages(site: Site) -> dict[str, str]:
    return {found["id"]: found["message"] for found in check_dependencies(site.read()[0])}


def test_dependencies_that_are_there_in_a_version_that_fits_are_no_findings(site: Site) -> None:
    site.install("app", headers=["Requires-Dist: Some.Lib >=1.0,<2", 'Requires-Dist: absent ; python_version < "3"'])
    site.install("some_lib", "1.5")
    assert dependency_messages(site) == {}


def test_a_missing_dependency_and_a_wrong_version_are_named_with_what_is_wanted(site: Site) -> None:
    site.install("app", headers=["Requires-Dist: absent>=3", "Requires-Dist: lib<2"])
    site.install("lib", "2.1")
    assert dependency_messages(site) == {"dependency:app": "needs absent>=3, which is not installed; needs lib<2, but 2.1 is installed"}


def test_dependencies_of_an_extra_count_once_somebody_asks_for_the_extra(site: Site) -> None:
    site.install("lib", headers=["Provides-Extra: fast", 'Requires-Dist: speedups ; extra == "fast"'])
    assert dependency_messages(site) == {}
    site.install("app", headers=["Requires-Dist: lib[fast]"])
    assert dependency_messages(site) == {"dependency:lib": "needs speedups, which is not installed"}


def test_an_extra_may_ask_for_a_further_extra_of_its_own_distribution(site: Site) -> None:
    site.install("app", headers=["Requires-Dist: lib[all]"])
    site.install("lib", headers=['Requires-Dist: lib[fast] ; extra == "all"', 'Requires-Dist: speedups ; extra == "fast"'])
    assert dependency_messages(site) == {"dependency:lib": "needs speedups, which is not installed"}


def test_a_prerelease_that_is_installed_counts_as_installed(site: Site) -> None:
    site.install("app", headers=["Requires-Dist: lib>=1"])
    site.install("lib", "2.0rc1")
    assert dependency_messages(site) == {}


def test_a_requirement_nobody_can_understand_is_a_finding_and_hides_no_other(site: Site) -> None:
    site.install("app", headers=["Requires-Dist: ???", "Requires-Dist: absent"])
    messages = dependency_messages(site)
    assert messages["dependency:app"] == "needs absent, which is not installed"
    assert "'???'" in messages["requirement:app"]


def test_a_distribution_for_another_python_is_a_finding(site: Site) -> None:
    site.install("ancient", headers=["Requires-Python: <3"])
    assert dependency_messages(site) == {"requirement:ancient": "needs Python <3"}


def test_two_versions_in_one_directory_are_a_finding_and_in_two_directories_the_first_hides_the_second(tmp_path: Path) -> None:
    front, back = Site(tmp_path / "front"), Site(tmp_path / "back")
    front.install("lib", "1.0")
    back.install("lib", "2.0")
    front.install("app", headers=["Requires-Dist: lib<2"])
    sites = [str(front.folder), str(back.folder)]
    assert check_dependencies(read_sites(sites)[0]) == []
    front.install("lib", "3.0")
    assert [found["id"] for found in check_dependencies(read_sites(sites)[0])] == ["twice:lib"]


def test_which_directory_comes_first_is_what_counts_not_its_name(tmp_path: Path) -> None:
    front, back = Site(tmp_path / "z-front"), Site(tmp_path / "a-back")
    front.install("lib", "1.0")
    back.install("lib", "2.0")
    front.install("app", headers=["Requires-Dist: lib<2"])
    assert check_dependencies(read_sites([str(front.folder), str(back.folder)])[0]) == []
    swapped = check_dependencies(read_sites([str(back.folder), str(front.folder)])[0])
    assert [found["id"] for found in swapped] == ["dependency:app"]


# --- risk and report --------------------------------------------------------------------------------------------------

FINDINGS = [
    finding("unlicensed", "low", "zeta", "declares no licence"),
    finding("tampered", "high", "beta", "files that do not match its RECORD: beta/a|b.py"),
    finding("dependency", "medium", "alpha", "needs x"),
]


def test_ignored_findings_add_nothing_to_the_risk() -> None:
    assert risk_score(FINDINGS) == 31
    assert risk_score(FINDINGS, ignore=["tampered:beta", "no-such:finding"]) == 6


def facts(**changes: Any) -> dict[str, Any]:
    return {
        "verdict": "accepted", "risk": 6, "risk_in_all": 31, "threshold": 20, "sites": ["/a"], "collected_at": "2025-01-02T03:04:05+00:00",
        "distributions": 3, "files": {"verified": 7}, "licences": {"MIT": 1, "Apache-2.0": 2}, "sizes": {"alpha": 3_000_000, "beta": 1_000},
        "largest": ["alpha", "beta"], "findings": audit_checks.worst_first(FINDINGS), "ignored": [], "note": "",
        "decisions": [{"at": "2025-01-02T03:05:00+00:00", "by": "ana", "outcome": "accepted", "risk": 31, "reason": "known"}],
    } | changes  # fmt: skip


def test_the_report_says_what_was_found_worst_first_and_who_decided() -> None:
    text = audit_report.markdown(facts())
    assert "**accepted**: risk 6, 31 with what was ignored (threshold 20), 3 distributions" in text
    assert "| 2025-01-02T03:05:00+00:00 | ana | accepted | 31 | known |" in text
    assert text.index("tampered:beta") < text.index("dependency:alpha") < text.index("unlicensed:zeta")
    assert text.index("| Apache-2.0 | 2 |") < text.index("| MIT | 1 |")
    assert "| alpha | 3.0 MB | 100.0% |" in text


def test_nothing_a_distribution_says_breaks_a_table_or_becomes_markup() -> None:
    nasty = "x | y\n| <script>alert(1)</script> [a](b)\x1b[31m"
    text = audit_report.markdown(facts(licences={nasty: 1}))
    row = next(line for line in text.splitlines() if "script" in line)
    assert row == r"| x \| y \| \<script\>alert(1)\</script\> \[a\](b) \[31m | 1 |"


def test_an_environment_without_anything_makes_a_report_without_empty_tables() -> None:
    empty = facts(findings=[], decisions=[], licences={}, files={}, sizes={}, largest=[], distributions=0)
    text = audit_report.markdown(empty)
    assert "Nobody had to decide." in text
    assert "|" not in text


def test_both_reports_are_written_whole_and_again_without_a_trace_of_the_first_time(tmp_path: Path) -> None:
    audit_report.write_report(tmp_path / "new/folder", facts(verdict="refused"))
    paths = audit_report.write_report(tmp_path / "new/folder", facts())
    assert json.loads(Path(paths["json"]).read_text(encoding="utf-8")) == facts()
    assert Path(paths["markdown"]).read_text(encoding="utf-8") == audit_report.markdown(facts())
    assert sorted(path.name for path in (tmp_path / "new/folder").iterdir()) == ["environment-audit.json", "environment-audit.md"]


# --- the flow ---------------------------------------------------------------------------------------------------------

GRAPH = environment_audit.flow.compile()


class Bench:
    """A site directory, a store, and executors that audit the one into the other."""

    def __init__(self, site: Site, reports: Path) -> None:
        self.site = site
        self.reports = reports
        self.store = MemoryCheckpointStore()
        self.nodes: list[str] = []

    def executor(self, **options: Any) -> GraphExecutor:
        return GraphExecutor(GRAPH, store=self.store, observers=[lambda done: self.nodes.append(done.row.node)], **options)

    async def audit(self, **options: Any) -> Any:
        async with self.executor() as executor:
            given = {"sites": [str(self.site.folder)], "reports": str(self.reports)}
            return await executor.execute(given | options)

    async def decide(self, run_id: str, decision: Decision) -> Any:
        """Decide and resume in an executor of its own, as another process would."""
        await self.store.decide(run_id, "review", decision)
        async with self.executor() as executor:
            return await executor.resume(run_id)

    def report(self) -> dict[str, Any]:
        facts: dict[str, Any] = json.loads((self.reports / "environment-audit.json").read_text(encoding="utf-8"))
        return facts

    def tamper(self, name: str) -> None:
        (self.site.folder / name / "__init__.py").write_text("name = 'evil'\n", encoding="utf-8")


@pytest.fixture
async def bench(site: Site, tmp_path: Path) -> AsyncIterator[Bench]:
    made = Bench(site, tmp_path / "reports")
    async with made.store:
        yield made


def licensed(site: Site, *names: str) -> None:
    for name in names:
        site.install(name, headers=["License-Expression: MIT"])


async def test_a_sound_environment_passes_without_anybody_being_asked(bench: Bench) -> None:
    licensed(bench.site, "a", "b", "c")
    result = await bench.audit(batch=2)
    assert (result.status, result.state.risk) == ("completed", 0)
    assert bench.report()["verdict"] == "passed"
    assert bench.report()["licences"] == {"MIT": 3}
    assert bench.report()["files"] == {"verified": 6, "unhashed": 3, "tampered": 0, "missing": 0, "unreadable": 0}
    assert [place.suffix for place in map(Path, result.state.written.values())] == [".md", ".json"]


async def test_an_empty_environment_passes(bench: Bench) -> None:
    assert (await bench.audit()).status == "completed"
    assert bench.report()["distributions"] == 0


async def test_files_are_verified_in_batches_of_which_each_is_a_step(bench: Bench) -> None:
    licensed(bench.site, *"abcdefg")
    result = await bench.audit(batch=3)
    assert bench.nodes.count("verify_batch") == 3
    assert result.state.files["verified"] == 14


async def test_a_tampered_file_waits_for_a_person_and_the_report_says_who_accepted_it_and_why(bench: Bench) -> None:
    licensed(bench.site, "a", "b")
    bench.tamper("b")
    waiting = await bench.audit()
    assert (waiting.status, waiting.waiting_for) == ("waiting", ("review#1",))
    assert not bench.reports.exists()
    (ticket,) = await bench.store.barriers(run_id=waiting.run_id)
    assert ticket.prompt == "The risk of this environment is 25, above 20. Accept it?"
    assert [found["id"] for found in ticket.payload["findings"]] == ["tampered:b"]

    done = await bench.decide(waiting.run_id, Decision.approve(by="ana", reason="patched by us"))
    assert done.status == "completed"
    assert bench.report()["verdict"] == "accepted"
    (decision,) = bench.report()["decisions"]
    assert {key: decision[key] for key in ("by", "outcome", "reason", "risk")} == {
        "by": "ana", "outcome": "accepted", "reason": "patched by us", "risk": 25,
    }  # fmt: skip
    assert decision["at"].endswith("+00:00")
    assert "| ana | accepted | 25 | patched by us |" in Path(done.state.written["markdown"]).read_text(encoding="utf-8")


async def test_a_refused_environment_has_a_report_too(bench: Bench) -> None:
    licensed(bench.site, "a")
    bench.tamper("a")
    waiting = await bench.audit()
    done = await bench.decide(waiting.run_id, Decision.reject(by="ben", reason="reinstall a"))
    assert done.status == "completed"
    assert (bench.report()["verdict"], bench.report()["decisions"][0]["by"]) == ("refused", "ben")
    assert "accepted" not in bench.nodes


async def test_ignoring_a_finding_scores_again_and_asks_again_only_while_the_risk_is_too_high(bench: Bench) -> None:
    licensed(bench.site, "a", "b")
    bench.tamper("a")
    bench.tamper("b")
    waiting = await bench.audit()
    again = await bench.decide(waiting.run_id, Decision.modify(by="ana", edits={"ignore": ["tampered:a"], "note": "a is ours"}))
    assert (again.status, again.waiting_for, again.state.risk) == ("waiting", ("review#2",), 25)
    done = await bench.decide(waiting.run_id, Decision.modify(by="ben", edits={"ignore": ["tampered:a", "tampered:b"]}))
    assert done.status == "completed"
    facts = bench.report()
    assert (facts["verdict"], facts["risk"], facts["risk_in_all"], facts["note"]) == ("passed", 0, 50, "a is ours")
    assert [one["outcome"] for one in facts["decisions"]] == ["amended", "amended"]
    assert [one["id"] for one in facts["ignored"]] == ["tampered:a", "tampered:b"]


async def test_approving_with_edits_accepts_and_keeps_them(bench: Bench) -> None:
    licensed(bench.site, "a")
    bench.tamper("a")
    waiting = await bench.audit()
    done = await bench.decide(waiting.run_id, Decision.modify(by="ana", edits={"note": "known"}, approve=True))
    assert (done.status, bench.report()["verdict"], bench.report()["note"]) == ("completed", "accepted", "known")


async def test_an_edit_that_does_not_fit_the_form_is_refused_and_the_ticket_stays_open(bench: Bench) -> None:
    licensed(bench.site, "a")
    bench.tamper("a")
    waiting = await bench.audit()
    with pytest.raises(InvalidDecisionError):
        await bench.store.decide(waiting.run_id, "review", Decision.modify(by="ana", edits={"risk": 0}, approve=True))
    assert [ticket.ticket for ticket in await bench.store.barriers(run_id=waiting.run_id)] == ["review#1"]


async def test_unreadable_metadata_takes_the_fallback_and_the_others_are_audited_all_the_same(bench: Bench) -> None:
    licensed(bench.site, "good", "broken")
    (bench.site.folder / "broken-1.0.dist-info/METADATA").write_bytes(b"\xff\xfe")
    waiting = await bench.audit()
    assert "collect_tolerant" in bench.nodes
    assert [(found["id"], found["severity"]) for found in waiting.state.findings] == [("unreadable-metadata:broken-1.0.dist-info", "high")]
    assert [one["name"] for one in waiting.state.distributions] == ["good"]
    assert waiting.state.files["verified"] == 2


async def test_a_site_directory_that_does_not_exist_fails_the_run_and_takes_no_fallback(bench: Bench, tmp_path: Path) -> None:
    with pytest.raises(RunFailedError, match="nowhere"):
        await bench.audit(sites=[str(tmp_path / "nowhere")])
    assert "collect_tolerant" not in bench.nodes
    assert not bench.reports.exists()


async def test_what_was_verified_before_a_stop_is_not_verified_again_after_it(bench: Bench) -> None:
    licensed(bench.site, *"abcdefghijkl")
    given = {"sites": [str(bench.site.folder)], "reports": str(bench.reports), "batch": 1}
    async with bench.executor(max_steps=10) as executor:
        stopped = await executor.execute(given)
    # Six of the ten steps may be others; at most eight may be batches.
    assert stopped.status == "limit_reached"
    assert 4 <= bench.nodes.count("verify_batch") <= 8
    bench.tamper("a")
    bench.tamper("l")
    async with bench.executor() as executor:
        resumed = await executor.resume(stopped.run_id, max_steps=100)
    assert bench.nodes.count("verify_batch") == 12
    assert resumed.state.files["verified"] + resumed.state.files["tampered"] == 24
    assert [found["id"] for found in resumed.state.findings] == ["tampered:l"]


async def test_findings_stand_in_the_order_of_the_branches_whichever_finished_first(bench: Bench) -> None:
    bench.site.install("a", headers=["Requires-Dist: absent"])
    bench.tamper("a")
    kinds = [[one["id"].partition(":")[0] for one in (await bench.audit()).state.findings] for _ in range(5)]
    assert kinds == [["tampered", "unlicensed", "dependency"]] * 5


# --- the script -------------------------------------------------------------------------------------------------------

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "examples/environment_audit.py"


def script(*arguments: object) -> subprocess.Popen[bytes]:
    command = [sys.executable, str(EXAMPLE), "--plain", *map(str, arguments)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    # Unbuffered: what is not asked for stays in the pipe, which is small, so that a script that prints much has to wait.
    return subprocess.Popen(
        command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, bufsize=0, pipesize=4096
    )  # fmt: skip


def output_of(process: subprocess.Popen[bytes]) -> str:
    return process.communicate(timeout=60)[0].decode()


def test_the_example_runs_the_flow_of_the_package() -> None:
    spec = importlib.util.spec_from_file_location("example_environment_audit", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.flow is environment_audit.flow


def test_a_killed_audit_goes_on_behind_the_last_line_it_printed(site: Site, tmp_path: Path) -> None:
    # Why so many: the pipe holds less than the script prints, so that it cannot have finished when it is killed.
    licensed(site, *(f"part{number:03}" for number in range(150)))
    reports = tmp_path / "reports"
    with script("--reports", reports, "--batch", 1, site.folder) as killed:
        assert killed.stdout is not None
        run_id = killed.stdout.readline().decode().removeprefix("run ").strip()
        printed: list[str] = []
        while len(printed) < 5 and (line := killed.stdout.readline().decode()):
            printed += [line] if "verify_batch" in line else []
        killed.kill()
    assert (len(printed), killed.returncode) == (5, -signal.SIGKILL)
    # Verified before the crash: what happens to it now is no longer looked at.
    (site.folder / "part000/__init__.py").write_text("evil = True\n", encoding="utf-8")
    with script("--reports", reports, "--resume", run_id) as resumed:
        output = output_of(resumed)
    assert resumed.returncode == 0, output
    assert "completed" in output
    before = {line.split()[0] for line in printed}
    assert not before & {line.split()[0] for line in output.splitlines() if "verify_batch" in line}
    facts = json.loads((reports / "environment-audit.json").read_text(encoding="utf-8"))
    assert facts["files"] == {"verified": 300, "unhashed": 150, "tampered": 0, "missing": 0, "unreadable": 0}
    assert facts["findings"] == []


def test_where_nobody_sits_at_a_terminal_the_script_says_how_to_go_on_and_leaves_the_run_waiting(site: Site, tmp_path: Path) -> None:
    licensed(site, "a")
    (site.folder / "a/__init__.py").write_text("evil = True\n", encoding="utf-8")
    with script("--reports", tmp_path / "reports", site.folder) as asked:
        output = output_of(asked)
    assert asked.returncode == 3, output
    assert "tampered:a" in output
    assert f"--resume {output.split()[1]}" in output
    assert "waiting after" in output

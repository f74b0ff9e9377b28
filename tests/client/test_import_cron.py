"""`jobcloud import-cron`: crontabs, Quartz's XML, and the whole command."""

from __future__ import annotations

import io
import json
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.client.test_apply import Shell

from jobcloud.client.import_cron import crontab, quartz
from jobcloud.client.import_cron.form import Form
from jobcloud.client.import_cron.report import Action, Item, Kind, Options, Report
from jobcloud.client.import_cron.sources import collect
from jobcloud.cron import Dialect, Schedule
from jobcloud.errors import ConfigError

DOC = (Path(__file__).parents[2] / "docs" / "migration.md").read_text()


def read(text: str | bytes, *, system: bool = False, **options: Any) -> list[Item]:
    data = text if isinstance(text, bytes) else text.encode()
    return Report.of(crontab.read(data, "crontab", system=system), Options("tools", **options)).items


def line(text: str, **more: Any) -> Item:
    return read(f"{text}\n", **more)[-1]


@pytest.mark.parametrize(
    ("text", "cron", "command"),
    [
        ("17 3 * * 1-5 /usr/local/bin/backup.sh --all", "17 3 * * 1-5", "/usr/local/bin/backup.sh --all"),
        ("@daily /x/y", "@daily", "/x/y"),
        ("  0\t1  2 3 4\t/x/y  ", "0 1 2 3 4", "/x/y"),
        ("*/60 * * * * /x/y", "*/60 * * * *", "/x/y"),
        ("0 0 * * 7 cd / && ls", "0 0 * * 7", "/bin/sh -c 'cd / && ls'"),
        ("0 0 * * SUN /x/y >/dev/null 2>&1", "0 0 * * SUN", "/bin/sh -c '/x/y >/dev/null 2>&1'"),
    ],
)
def test_line_is_taken(text: str, cron: str, command: str) -> None:
    item = line(text)
    assert (item.action, item.changes) == (Action.TAKEN, [])
    assert (item.job["cron"], item.job["cronDialect"], item.job["scriptCommandLine"]) == (cron, "unix", command)
    assert item.words


@pytest.mark.parametrize(
    ("text", "cron", "said"),
    [
        ("50-40,7 * * * * /x", "7 * * * *", "ranges that run backwards select nothing in cron"),
        ("0 0 * * sat-sun,3 /x", "0 0 * * 3", "ranges that run backwards select nothing in cron"),
        ("5/15 * * * * /x", "5/15 * * * *", "Debian's cron refuses 5/15"),
        ("0 0 30 2 * /x", "0 0 30 2 *", "it never fires"),
        ("0 0 28-3 * 1 /x", "0 0 * * 1", "28-3: it selects nothing in cron, so only 1 counts"),
        ("0 0 5 * fri-mon /x", "0 0 5 * *", "fri-mon: it selects nothing in cron, so only 5 counts"),
    ],
)
def test_line_is_changed_and_the_difference_is_named(text: str, cron: str, said: str) -> None:
    item = line(text)
    assert (item.action, item.job["cron"]) == (Action.CHANGED, cron)
    assert any(said in change for change in item.changes)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("@reboot /x", "fires when a machine starts"),
        ("@every_minute /x", "is not a macro"),
        ("22-2 * * * * /x", "cron accepts it and never fires the line"),
        ("0 0 * * mon-sun /x", "cron accepts it and never fires the line"),
        ("0 0 28-3 * */2 /x", "cron accepts it and never fires the line"),
        ("0 0 28-3 * fri-mon /x", "cron accepts it and never fires the line"),
        ("0 0 * * mon#1 /x", "quartz dialect"),
        ("1-2-3 * * * * /x", "'1-2-3' is not usable"),
        ("60 * * * * /x", "from 0 to 59"),
        ("0 0 * * *", "it has no command"),
        ("@daily", "it has no command"),
        ("hello world", "neither a variable, nor five fields"),
        ("A B=c", "neither a variable, nor five fields"),
        ("10 * * * * root /x", "--from system-crontab"),
        ("0 0 * * * /x\r", "a carriage return"),
        ("'I J'=k", "cannot be the name of a variable"),
        ("JOBCLOUD_TEAM=x", "is reserved"),
        ("0 0 * * * /x '" + "y" * 70_000 + "'", "scriptCommandLine"),
    ],
)
def test_line_is_refused_with_the_reason(text: str, said: str) -> None:
    item = line(text)
    assert item.action is Action.REFUSED
    assert said in item.reason
    assert item.job == {}


def test_line_that_is_not_utf8_is_refused_and_the_others_are_taken() -> None:
    items = read(b"0 0 * * * /x/\xff\n0 0 * * * /x/y\n")
    assert [item.action for item in items] == [Action.REFUSED, Action.TAKEN]


def test_taken_lines_fire_as_the_daemon_of_debian_fires_them() -> None:
    compared = 0
    for row in (Path(__file__).parents[1] / "data" / "debian_cron.tsv").read_text("ascii").splitlines():
        text, zone, start, end, steps = row.split("\t")
        item = line(f"{text} /x")
        if zone != "UTC" or steps == "REFUSED":
            continue
        if item.action is Action.REFUSED:
            # It never fires, or the rest of a field is ignored there.
            assert not steps or "is not usable" in item.reason or "expected a number" in item.reason, text
            continue
        distances = [int(step) for step in steps.split()]
        recorded = [int(start) + sum(distances[: index + 1]) for index in range(len(distances))]
        schedule = Schedule.parse(item.job["cron"], dialect=Dialect.UNIX)
        assert [at // 1000 for at in schedule.between(int(start) * 1000, int(end) * 1000, 10_000)] == recorded, text
        compared += bool(recorded)
    assert compared > 180


def test_comments_are_skipped_and_those_that_look_like_lines_are_named() -> None:
    items = read("# m h dom mon dow\n\n# 5 4 * * * /bin/disabled\n#@daily /bin/b\n  # note\n")
    assert {item.kind for item in items} == {Kind.COMMENT}
    assert ["looks like" in item.reason for item in items] == [False, False, True, True, False]


# As `crontab -n` of Debian's cron 3.0pl1-162 accepts them.
VARIABLE_LINES = {
    "A = one two": True, 'B="  q  "': True, "C='x'y": False, "D=": False, 'E="half': False, " F=lead": True,
    '"G"=quoted': True, "H=a#b": True, 'K="a" trailing': False, "L=$HOME/x": True, "A B=c": False, "A =": False,
    "A": False, 'A="x"  ': True, 'A="x\\"y"': False, 'MAILTO=""': True, 'D = ""': True, "A=x=y": True, '"x=y': False,
}  # fmt: skip


@pytest.mark.parametrize(("text", "accepted"), VARIABLE_LINES.items())
def test_variable_is_taken_if_cron_takes_it(text: str, accepted: bool, tmp_path: Path) -> None:
    assert (line(text).action is not Action.REFUSED) is accepted
    if Path("/usr/bin/crontab").exists():
        (tmp_path / "tab").write_text(f"{text}\n")
        checked = subprocess.run(["/usr/bin/crontab", "-n", str(tmp_path / "tab")], check=False, capture_output=True)
        assert (checked.returncode == 0) is accepted


def test_variables_hold_for_the_lines_below() -> None:
    items = read(
        '0 0 * * * /x/a\nCRON_TZ=Europe/Rome\nSHELL = /bin/bash\nMAILTO=""\nRANDOM_DELAY=5\nA="b  c  "\nTZ=Asia/Tokyo\n'
        "HOME=/srv\n0 0 * * * /x/b\nCRON_TZ=Mars\n0 0 * * * /x/c\n"
    )
    actions = {item.text.partition("=")[0].strip(): item.action for item in items if item.kind is Kind.VARIABLE}
    assert actions == {
        "CRON_TZ": Action.CHANGED,
        "SHELL": Action.TAKEN,
        "MAILTO": Action.CHANGED,
        "RANDOM_DELAY": Action.CHANGED,
        "A": Action.TAKEN,
        "TZ": Action.CHANGED,
        "HOME": Action.TAKEN,
    }
    first, second, third = (item for item in items if item.kind is Kind.LINE)
    assert first.job["scriptCommandLine"] == "/x/a"
    assert "timeZone" not in first.job
    assert second.job["timeZone"] == "Europe/Rome"
    assert ("jitterSeconds" in first.job, second.job["jitterSeconds"]) == (False, 300)
    assert shlex.split(second.job["scriptCommandLine"]) == [
        "/bin/bash",
        "-c",
        "export A='b  c'\nexport TZ=Asia/Tokyo\nexport HOME=/srv\ncd \"$HOME\" || exit\n/x/b",
    ]
    assert third.action is Action.REFUSED
    assert "'Mars' is unknown" in third.reason


def test_system_crontab_has_a_user_in_each_line() -> None:
    items = read("17 * * * * root /x/y\n@daily\tnobody\t/x/z\n0 0 * * * root\n", system=True)
    assert [item.job.get("scriptCommandLine") for item in items] == ["/x/y", "/x/z", None]
    assert items[0].changes == ["it runs as the user of the executor, not as 'root'"]
    assert items[2].reason == "it has no command"


# As the daemon of Debian's cron 3.0pl1-162 ran these lines (output with a % for the directory).
OBSERVED = [
    (r"""printf '\%s' 'a\b\\c\%d'""", "a\\b\\c%d"),
    (r"""cat %line1%line2\%x\y\\z%%end""", "line1\nline2%x\\y\\\\z\n\nend\n"),
    ("cat % a % b ", " a \n b \n"),
    ("cat %a%", "a\n"),
    ("cat %", ""),
    ("""cat; echo "it's" %"two" 'three' $4""", "\"two\" 'three' $4\nit's\n"),
]


@pytest.mark.parametrize(("text", "output"), OBSERVED, ids=[text for text, _ in OBSERVED])
@pytest.mark.parametrize("variables", ["", "SHELL=/bin/sh\nA=$HOME\n"])
def test_command_does_what_cron_does_with_it(text: str, output: str, variables: str) -> None:
    item = read(f"{variables}* * * * * {text}\n")[-1]
    words = shlex.split(item.job["scriptCommandLine"])
    done = subprocess.run(words, check=True, capture_output=True, text=True)
    assert done.stdout == output


def test_names_come_from_the_command_and_are_numbered_in_order() -> None:
    commands = [
        "/usr/bin/backup.sh", "cd / && run-parts --report /etc/cron.daily", "[ -x /bin/a ] && /bin/a",
        "python3 /x/report.py",
        "env A=b nice /x/backup.sh", "/x/ü", "A=1 /x/y", "bash -c 'x y'",
    ]  # fmt: skip
    items = read("".join(f"0 0 * * * {command}\n" for command in commands))
    assert [item.name for item in items] == ["backup", "run-parts", "a", "report", "backup-2", "job", "y", "x"]
    assert [item.name for item in read("0 0 * * * /x/y\n0 0 * * * /x/y\n", names={"y-2": "z"})] == ["y", "z"]


def test_numbered_name_of_another_job_is_not_taken_twice() -> None:
    assert [item.name for item in read("0 0 * * * /x/y-2\n0 0 * * * /x/y\n" + "0 0 * * * /x/y\n" * 2)] == [
        "y-2",
        "y",
        "y-3",
        "y-4",
    ]


@pytest.mark.parametrize(
    ("names", "said"),
    [({"no": "x"}, "no job has the name 'no'"), ({"a": "b"}, "'b' would be the name of two jobs")],
)
def test_wrong_rename_is_refused(names: dict[str, str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        read("0 0 * * * /x/a\n0 0 * * * /x/b\n", names=names)


def test_last_line_without_a_newline_is_taken_and_named() -> None:
    assert line("").action is Action.SKIPPED
    (item,) = read("0 0 * * * /x/y")
    assert item.action is Action.CHANGED
    assert "no newline" in item.changes[0]


@given(
    st.one_of(st.binary(max_size=300), st.text("0123456789*/-,@% \t#=\"'\\\nabcROOT", max_size=200).map(str.encode)),
    st.booleans(),
)
def test_report_has_one_item_for_each_line_of_arbitrary_bytes(data: bytes, system: bool) -> None:
    items = read(data, system=system)
    lines = data.split(b"\n")
    assert [item.line for item in items] == list(range(1, len(lines) + bool(lines[-1])))
    for item in items:
        assert (item.action is Action.REFUSED) <= bool(item.reason)
        assert bool(item.job) is bool(item.name)
        if item.job:
            Schedule.parse(item.job["cron"], dialect=Dialect.UNIX)
            assert shlex.split(item.job["scriptCommandLine"])


def test_hostile_crontab_is_read_quickly_and_its_manifest_is_bounded() -> None:
    spaces = " " * 1_000_000
    lines = [f"A=b{spaces}c", f"0 0 * * *{spaces}/x", f"'{spaces}=", f"#{spaces}", f"A{spaces}=b", '"' * 100_000]
    assert len(read("\n".join(lines))) == len(lines)
    many = read("".join(f"A{number}={'b' * 4_000}\n" for number in range(200)) + "0 0 * * * /x/y\n" * 2)
    assert [item.action for item in many].count(Action.REFUSED) > 100
    assert "at most 100 variables" in many[150].reason
    same = read("A=" + "b" * 4_000 + "\n" + "0 0 * * * /x/y\n" * 2_000)
    names = [item.name for item in same if item.job]
    assert 500 < len(names) < 1_000
    assert names[:3] == ["y", "y-2", "y-3"]
    assert "the manifest would be longer" in same[-1].reason


def test_too_many_lines_are_refused_as_a_whole() -> None:
    (item,) = read("\n" * (crontab.MAX_LINES + 1))
    assert (item.kind, item.action) == (Kind.FILE, Action.REFUSED)


# Quartz


def xml(triggers: str, job: str = "", root: str = "job-scheduling-data") -> bytes:
    return f"""<?xml version="1.0" encoding="UTF-8"?>
<{root} xmlns="http://www.quartz-scheduler.org/xml/JobSchedulingData" version="2.0">
<schedule><job><name>report</name><job-class>com.acme.Report</job-class>{job}</job>{triggers}</schedule>
</{root}>""".encode()


def trigger(fields: str, kind: str = "cron") -> str:
    return f"<trigger><{kind}><name>t</name><job-name>report</job-name>{fields}</{kind}></trigger>"


def of_quartz(data: bytes, **options: Any) -> list[Item]:
    return Report.of(quartz.read(data, "jobs.xml"), Options("tools", **options)).items


EVERY = "<repeat-interval>{}</repeat-interval>"
MONTHLY = EVERY.format(1) + "<repeat-interval-unit>MONTH</repeat-interval-unit>"
CRON = "<cron-expression>0 0 2 1,L * ?</cron-expression>"


def test_cron_trigger_becomes_a_job() -> None:
    (item,) = of_quartz(xml(trigger(CRON + "<time-zone>Europe/Rome</time-zone>")))
    assert (item.action, item.name, item.line) == (Action.CHANGED, "report", 3)
    assert item.job == {
        "cron": "0 0 2 1,L * ?",
        "dstGap": "skip",
        "dstFold": "once",
        "timeZone": "Europe/Rome",
        "catchUp": "once",
        "jobType": "SIMPLE",
        "jobExecutionType": "TRANSIENT",
        "jobClass": "com.acme.Report",
        "description": "from jobs.xml",
    }
    assert "a class of Quartz's interface Job must be adapted" in item.changes[0]
    assert "Quartz takes the second" in item.changes[1]


@pytest.mark.parametrize(
    ("instruction", "catch_up"),
    [
        ("", "once"),
        ("MISFIRE_INSTRUCTION_SMART_POLICY", "once"),
        ("MISFIRE_INSTRUCTION_FIRE_ONCE_NOW", "once"),
        ("MISFIRE_INSTRUCTION_DO_NOTHING", None),
        ("MISFIRE_INSTRUCTION_IGNORE_MISFIRE_POLICY", "all"),
    ],
)
def test_misfire_instruction_becomes_catch_up(instruction: str, catch_up: str | None) -> None:
    (item,) = of_quartz(xml(trigger(CRON + f"<misfire-instruction>{instruction}</misfire-instruction>")))
    assert item.job.get("catchUp") == catch_up


@pytest.mark.parametrize(
    ("interval", "cron"),
    [
        (30_000, "0/30 * * * * ?"),
        (900_000, "0 0/15 * * * ?"),
        (7_200_000, "0 0 0/2 * * ?"),
        (86_400_000, "0 0 0 * * ?"),
    ],
)
def test_simple_trigger_for_ever_becomes_a_cron_expression(interval: int, cron: str) -> None:
    fields = f"<repeat-count>-1</repeat-count><repeat-interval>{interval}</repeat-interval>"
    (item,) = of_quartz(xml(trigger(fields, "simple")))
    assert item.job["cron"] == cron
    assert any("not from the start of the scheduler" in change for change in item.changes)
    unit = "<repeat-interval>15</repeat-interval><repeat-interval-unit>MINUTE</repeat-interval-unit>"
    (item,) = of_quartz(xml(trigger(unit, "calendar-interval")))
    assert item.job["cron"] == "0 0/15 * * * ?"


def test_interval_of_a_trigger_counts_from_its_start_time() -> None:
    fields = f"<repeat-count>-1</repeat-count>{EVERY.format(5_400_000)}"
    period = "<start-time>2027-01-01T06:10:00</start-time><end-time>2027-06-30T00:00:00</end-time>"
    (item,) = of_quartz(xml(trigger(period + fields, "simple")))
    found = {name: item.job.get(name) for name in ("cron", "triggers", "startTime", "endTime")}
    assert found == {
        "cron": None, "triggers": ["@every 5400s"], "startTime": "2027-01-01T06:10:00",
        "endTime": "2027-06-30T00:00:00",
    }  # fmt: skip
    assert item.words == "every 5400s; from 2027-01-01T06:10:00; until 2027-06-30T00:00:00"
    (item,) = of_quartz(xml(trigger(fields, "simple")))
    assert (item.job["triggers"], item.words) == (["@every 5400s"], "every 5400s")
    assert any("counts from 1970" in change for change in item.changes)


@pytest.mark.parametrize("fields", ["", "<repeat-count>0</repeat-count><repeat-interval>1000</repeat-interval>"])
def test_simple_trigger_that_fires_once_becomes_a_trigger_at_its_start_time(fields: str) -> None:
    (item,) = of_quartz(xml(trigger("<start-time>2027-01-01T06:10:00</start-time>" + fields, "simple")))
    assert item.job["triggers"] == ["@at 2027-01-01T06:10:00"]
    assert not {"cron", "startTime"} & item.job.keys()
    assert item.words == "once, at 2027-01-01T06:10:00"
    assert "start-time: it becomes a trigger @at, in the time zone of the job" in item.changes


def test_data_and_descriptions_are_kept_and_differences_named() -> None:
    data = "<job-data-map><entry><key>city</key><value>R&amp;me</value></entry></job-data-map>"
    data += "<durability>true</durability>"
    fields = (
        CRON + "<description>nightly</description><priority>9</priority><start-time>2027-01-01T00:00:00</start-time>"
    )
    (item,) = of_quartz(xml(trigger(fields), data))
    assert json.loads(item.job["jobParameter"]) == {"city": "R&me"}
    assert item.job["description"] == "nightly"
    named = " ".join(item.changes)
    for part in ("durability", "job-data-map", "start-time", "priority: 9"):
        assert part in named


@pytest.mark.parametrize(
    ("triggers", "said"),
    [
        (trigger(CRON + "<calendar-name>holidays</calendar-name>"), "excludes the days of the calendar 'holidays'"),
        (trigger(CRON + "<end-time>2027-01-01T00:00:00+01:00</end-time>"), "its end-time"),
        (trigger(CRON.replace("1,L", "1")[:-4]), "it is not XML"),
        (trigger("<cron-expression>0 0 2 * *</cron-expression>"), "has 5 fields"),
        (trigger("<cron-expression>0 0 2 ? * 6#3,2</cron-expression>"), "lists are not possible"),
        (trigger(CRON + "<time-zone>EST5EDTX</time-zone>"), "is unknown"),
        (trigger(CRON + "<misfire-instruction>FOO</misfire-instruction>"), "'FOO' is unknown"),
        (trigger("<repeat-count>3</repeat-count><repeat-interval>1000</repeat-interval>", "simple"), "repeats 3 times"),
        (trigger("", "simple"), "it fires once"),
        (trigger(f"<repeat-count>-1</repeat-count>{EVERY.format(7500)}", "simple"), "no whole number of seconds"),
        (trigger(MONTHLY, "calendar-interval"), "it repeats by the month"),
        (trigger("", "daily-time"), "triggers of the kind 'daily-time' are unknown"),
        ("<trigger><cron><name>t</name><job-name>other</job-name></cron></trigger>", "'other' is not in the file"),
        ("<trigger/>", "it is empty"),
    ],
)  # fmt: skip
def test_trigger_is_refused_with_the_reason(triggers: str, said: str) -> None:
    refused = [item for item in of_quartz(xml(triggers)) if item.action is Action.REFUSED]
    assert said in refused[0].reason


def test_trigger_with_very_many_entries_is_refused() -> None:
    entries = "<entry><key>a</key></entry>" * 1_001
    (item,) = of_quartz(xml(trigger(CRON), f"<job-data-map>{entries}</job-data-map>"))
    assert "more than 1,000 entries" in item.reason


def test_job_without_a_trigger_is_skipped() -> None:
    (item,) = of_quartz(xml(""))
    assert (item.kind, item.action, item.text) == (Kind.JOB, Action.SKIPPED, "report")


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "it is not XML"),
        (b"<a>", "it is not XML"),
        (b"\xff\xfe\x00", "it is not XML"),
        (b'<?xml version="1.0" encoding="klingon"?><a/>', "it is not XML"),
        (b'<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><a>&x;</a>', "a document type declaration is refused"),
        (b'<!DOCTYPE a SYSTEM "http://127.0.0.1:9/x.dtd"><a/>', "a document type declaration is refused"),
        (b'<!DOCTYPE a [<!ENTITY a "b"><!ENTITY c "&a;&a;&a;">]><a>&c;</a>', "a document type declaration is refused"),
        (b"<a>&x;</a>", "it is not XML"),
        (b"<a>" * 40 + b"</a>" * 40, "nested more than 32 deep"),
        (b"<a>" + b"<b/>" * 200_001 + b"</a>", "more than 200,000 elements"),
        (xml("", root="beans"), "it is no file of Quartz"),
    ],
)
def test_hostile_or_foreign_xml_is_refused_as_a_whole(data: bytes, said: str) -> None:
    (item,) = of_quartz(data)
    assert (item.kind, item.action) == (Kind.FILE, Action.REFUSED)
    assert said in item.reason


@given(st.binary(max_size=300))
def test_arbitrary_bytes_in_xml_give_items(data: bytes) -> None:
    assert of_quartz(data)
    of_quartz(xml(trigger(CRON)).replace(b"2.0", data[:20]).replace(b"report", data[20:40]))


# The whole command


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    monkeypatch.chdir(tmp_path)
    return Shell(tmp_path, monkeypatch, capsys)


def block(name: str) -> str:
    """The block of docs/migration.md that begins with this line."""
    found = re.search(rf"```\w*\n({re.escape(name)}.*?)```", DOC, re.DOTALL)
    assert found, name
    return found[1]


def test_example_of_the_docs_gives_its_report_and_a_manifest_that_the_server_takes(
    shell: Shell, tmp_path: Path
) -> None:
    (tmp_path / "crontab.txt").write_text(block("# crontab.txt"))
    (tmp_path / "sync.timer").write_text(block("# sync.timer"))
    (tmp_path / "sync.service").write_text(block("# sync.service"))
    (tmp_path / "quartz.xml").write_text(block("<job-scheduling-data").lstrip())
    assert shell("app", "add", shell.app("tools", "app: {}\n"), "--no-jobs")[0] == 0
    command = shlex.split(block("jobcloud import-cron crontab.txt").replace("\\\n", " ").splitlines()[0])
    code, out, err = shell(*command[1:])
    assert (code, err) == (1, "")
    printed = re.sub(r" +\n", "\n", out)
    assert printed == block("PLACE"), printed
    assert shell("apply", "-f", "tools.yaml", "--dry-run")[0] == 0
    assert shell("apply", "-f", "tools.yaml")[0] == 0
    assert sorted(shell.loop.scheduler.jobs) == ["backup", "mail", "report", "sync"]
    again, _, said = shell(*command[1:])
    assert again == 2
    assert "tools.yaml cannot be written: File exists" in said


def test_report_in_json_has_every_line_and_the_manifest(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "tab").write_text("# note\n0 0 * * * /x/y\n22-2 * * * * /x/z\n")
    arguments = ("import-cron", "tab", "--app", "tools", "--zone", "Asia/Tokyo", "--rename", "y=nightly", "--cpus", "2")
    code, out, _ = shell("--team", "ops", *arguments, "--dry-run", "--json")
    found = json.loads(out)
    assert code == 1
    assert found["dryRun"]
    assert found["summary"] == {"taken": 1, "changed": 0, "refused": 1, "skipped": 1}
    assert [(item["line"], item["action"], item["jobName"]) for item in found["items"]] == [
        (1, "skipped", ""),
        (2, "taken", "nightly"),
        (3, "refused", ""),
    ]
    (job,) = found["manifest"]["jobs"]
    assert (job["jobName"], job["team"], job["timeZone"], job["cpuCount"]) == ("nightly", "ops", "Asia/Tokyo", 2)
    assert list(tmp_path.glob("*.yaml")) == []


def test_manifest_may_be_json_and_standard_input_is_read(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"0 0 * * * root /x/y\n")))
    code, _, err = shell("import-cron", "-", "--app", "tools", "--from", "system-crontab", "-o", "jobs.json")
    assert code == 0, err
    assert json.loads((tmp_path / "jobs.json").read_text())["jobs"][0]["scriptCommandLine"] == "/x/y"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("tab", "--app", "tools"), "--out: is missing"),
        (("none", "--app", "tools", "--dry-run"), "cannot be read"),
        (("tab", "--app", "a b", "--dry-run"), "--app"),
        (("tab", "--app", "tools", "--zone", "Mars", "--dry-run"), "--zone"),
        (("tab", "--app", "tools", "--rename", "x", "--dry-run"), "is not OLD=NEW"),
    ],
)
def test_wrong_options_are_refused(shell: Shell, tmp_path: Path, arguments: tuple[str, ...], said: str) -> None:
    (tmp_path / "tab").write_text("0 0 * * * /x/y\n")
    code, _, err = shell("import-cron", *arguments)
    assert code == 2
    assert said in err


def test_directory_is_read_by_the_forms_of_its_files(tmp_path: Path) -> None:
    folder = tmp_path / "cron.d"
    folder.mkdir()
    (folder / "e2scrub").write_text("30 3 * * 0 root /sbin/scrub\n")
    (folder / "left.dpkg-old").write_text("0 0 * * * root /x\n")
    units = tmp_path / "units"
    (units / "a.timer.d").mkdir(parents=True)
    (units / "a.timer").write_text("[Timer]\nOnCalendar=daily\n")
    (units / "a.timer.d" / "x.conf").write_text("[Timer]\nOnCalendar=hourly\n")
    (units / "a.service").write_text("[Service]\nExecStart=/x\n")
    (units / "lonely.service").write_text("[Service]\nExecStart=/x\n")
    items = collect([folder, units], Form.AUTO, io.BytesIO())
    assert [(item.kind, item.action) for item in items] == [
        (Kind.LINE, Action.TAKEN),
        (Kind.FILE, Action.SKIPPED),
        (Kind.TIMER, Action.TAKEN),
        (Kind.FILE, Action.SKIPPED),
    ]
    assert items[-1].reason == "no given timer starts it"


def test_large_file_is_refused(tmp_path: Path) -> None:
    large = tmp_path / "large"
    large.write_bytes(b"#" * ((4 << 20) + 1))
    with pytest.raises(ConfigError, match="is longer than"):
        collect([large], Form.AUTO, io.BytesIO())


@given(st.lists(st.text(max_size=40), max_size=5))
def test_manifest_of_arbitrary_commands_is_valid_yaml_with_the_same_values(commands: list[str]) -> None:
    from jobcloud.client import documents

    text = "".join(f"0 0 * * * x {command}\n" for command in commands)
    options = Options("tools")
    manifest = Report.of(crontab.read(text.encode(), "tab", system=False), options).manifest(options)
    assert documents.parse(documents.to_yaml(manifest).encode(), "out.yaml").value == manifest

"""`jobcloud audit verify`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.audit_kit import FakeDisk, make_entry, make_log

from jobcloud.audit.log import Limits
from jobcloud.client.cli import main


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as end:
        main(["audit", *arguments])
    out, err = capsys.readouterr()
    return int(end.value.code or 0), " ".join(out.split()), err


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    disk = FakeDisk()
    log = make_log(disk, Limits(file_bytes=600))
    for number in range(9):
        log.append([make_entry(number)])
    disk.write_to(tmp_path)
    (tmp_path / "heads").write_text(f"2026-12-01T00:00:00.000Z jobcloud {log.head}\n")
    return tmp_path


def test_whole_log_is_compared_with_heads(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "verify", str(folder), "--heads", str(folder / "heads"))
    assert (code, out.partition(" chain=")[0]) == (0, "9 entries are whole, 1 exported heads fit")
    code, out, _ = run(capsys, "verify", str(folder))
    assert "not compared" in out


def test_fault_is_told_with_its_place(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = folder / "audit-000002.jsonl"
    path.write_bytes(path.read_bytes().replace(b"user:u3", b"user:u4"))
    code, out, _ = run(capsys, "verify", str(folder))
    assert code == 1
    assert "audit-000002.jsonl:" in out.replace(" ", "")
    code, out, _ = run(capsys, "verify", "--json", str(folder))
    found = json.loads(out)
    assert (code, found["ok"]) == (1, False)
    assert "its hash does not fit its content" in found["problem"]


def test_cut_end_is_told(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sorted(folder.glob("*.jsonl"))[-1].unlink()
    code, out, _ = run(capsys, "verify", str(folder), "--heads", str(folder / "heads"))
    assert code == 1
    assert "truncated" in out


def test_missing_files_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "no files of an audit log" in run(capsys, "verify", str(tmp_path))[2]
    code, _, err = run(capsys, "verify", str(tmp_path / "none"))
    assert code == 2
    assert "cannot be read: No such file" in err


class Answers:
    """A client of a server that answers each question with the next list of entries."""

    def __init__(self, *answers: list[dict[str, object]]) -> None:
        self.answers = list(answers)
        self.filters: list[dict[str, str]] = []

    def __enter__(self) -> Answers:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def audit_pages(self, size: int, **filters: str) -> Iterator[list[dict[str, object]]]:
        self.filters.append(dict(filters))
        while self.answers:
            yield self.answers.pop(0)

    def audit(self, limit: int, **filters: str) -> list[dict[str, object]]:
        self.filters.append(dict(filters))
        if not self.answers:
            raise KeyboardInterrupt
        return self.answers.pop(0)


def entry(seq: int, **more: object) -> dict[str, object]:
    same = {"chain": "c", "seq": seq, "at": f"2026-12-01T09:00:{seq:02}.000Z", "method": "PUT", "route": "/jobs"}
    return same | {"subject": "user:ann", "kind": "outcome"} | more


def test_list_leaves_out_intents_that_have_an_outcome(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ended = entry(3, of=2, outcome="failed", reason="a\nb")
    client = Answers([entry(4, kind="intent", outcome="allowed"), ended, entry(2)])
    monkeypatch.setattr("jobcloud.client.commands.audit.connect", lambda ctx: client)
    code, out, _ = run(capsys, "list", "--actor", "user:ann", "--outcome", "FAILED")
    assert code == 0
    assert out.count("user:ann") == 2
    assert "allowed" in out
    assert client.filters[0]["actor"] == "user:ann"
    assert client.filters[0]["outcome"] == "failed"


def test_limit_counts_a_change_once(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    # The outcome of a change may be far from its intent, because other changes end meanwhile.
    entries = [entry(8, of=5), entry(7, of=6), entry(6), entry(5), entry(4, of=3), entry(3), entry(2, of=1), entry(1)]
    pages = [entries[:3], entries[3:5], entries[5:6], entries[6:]]
    client = Answers(*pages)
    monkeypatch.setattr("jobcloud.client.commands.audit.connect", lambda ctx: client)
    code, out, _ = run(capsys, "list", "--limit", "3")
    assert (code, [f"09:00:{number:02}" in out for number in range(1, 9)]) == (
        0,
        [False] * 3 + [True, False, False] + [True] * 2,
    )
    assert client.answers == pages[2:], "nothing more is read"
    client.answers = list(pages)
    assert run(capsys, "list", "--limit", "100")[1].count("user:ann") == 4, "there are no more"


def test_json_list_has_each_entry(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    client = Answers([entry(2, of=1), entry(1)])
    monkeypatch.setattr("jobcloud.client.commands.audit.connect", lambda ctx: client)
    assert [one["seq"] for one in json.loads(run(capsys, "list", "--json")[1])] == [2, 1]


def test_follow_prints_each_entry_once_in_its_order(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    client = Answers([entry(2), entry(1)], [entry(3), entry(2), entry(1)], [entry(4), entry(3)])
    monkeypatch.setattr("jobcloud.client.commands.audit.connect", lambda ctx: client)
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    with pytest.raises(SystemExit):
        main(["audit", "list", "-f", "--json"])
    assert [json.loads(line)["seq"] for line in capsys.readouterr().out.splitlines()] == [1, 2, 3, 4]
    assert client.filters[1]["since"] == "2026-12-01T08:59:02Z"

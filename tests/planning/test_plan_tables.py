"""Tables of hosts and tasks. Errors name file, line, column and fix."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import pytest

from jobcloud.match.constraints import HOST, ConstraintError
from jobcloud.planning.amounts import parse
from jobcloud.planning.rules import MAX_PER_HOST, parse_rules
from jobcloud.planning.tables import BadTable, read_hosts, read_tasks


class Write(Protocol):
    def __call__(self, text: str | bytes, name: str = "t.csv") -> Path: ...


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(text: str | bytes, name: str = "t.csv") -> Path:
        path = tmp_path / name
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return path

    return write


def test_tasks_are_read_from_a_table(write: Write) -> None:
    text = (
        "id,job,cpus,mem_mb,disk_mb,gpus,ports,constraint,arrive_s,leave_s,count,rdma\n"
        "a,ja,0.1,8192,0,0,,anti:ja<=2;jb<=0,0,-1,610,\n"
        "b,,1.25,1,0,1,2,gpu_model=V100|T4;max_per_host=3,12.5,60,,7\n"
    )
    table = read_tasks(write(text))
    assert table.dimensions == ("cpus", "mem_mb", "disk_mb", "gpus", "ports", "rdma")
    a, b = table.rows
    assert (a.id, a.job, a.copies, a.arrive_s, a.leave_s, a.line) == ("a", "ja", 610, 0.0, None, 2)
    assert a.amounts == (100, 8_192_000, 0, 0, 0, 0)
    assert a.rules.neighbours == {"ja": 2, "jb": 0}
    assert a.rules.max_per_host == MAX_PER_HOST
    assert (b.job, b.copies, b.arrive_s, b.leave_s) == ("b", 1, 12.5, 60.0)
    assert b.amounts == (1250, 1000, 0, 1000, 2000, 7000)
    assert b.rules.max_per_host == 3
    assert b.rules.attributes[0].holds({"gpu_model": "T4"})
    assert not b.rules.attributes[0].holds({"gpu_model": "A10"})


def test_hosts_are_read_from_a_table(write: Write) -> None:
    text = (
        "\ufeffid,cpus,mem_mb,port_beg,port_end,attr_zone,attr_rack,count,price\r\n"
        'h,64.00,131072,31000,32000,a,"r,1",3,1999.5\r\n\r\n'
        "i,1,1,,,,,,\r\n"
    )
    table = read_hosts(write(text))
    assert table.dimensions == ("cpus", "mem_mb", "ports")
    h, i = table.rows
    assert h.amounts == (64_000, 131_072_000, 1_001_000)
    assert h.attributes == {HOST: "h", "zone": "a", "rack": "r,1"}
    assert (h.copies, h.price) == (3, 1999.5)
    assert h.each() == ["h#0", "h#1", "h#2"]
    assert i.amounts == (1000, 1000, 0)
    assert i.each() == ["i"]


def test_names_may_come_from_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    import io

    monkeypatch.setattr("sys.stdin", io.StringIO("id,cpus,mem_mb\na,1,1\n"))
    assert read_tasks(Path("-")).rows[0].id == "a"
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"\xef\xbb\xbfid,cpus,mem_mb\r\nb,1,1\r\n")))
    assert read_tasks(Path("-")).rows[0].id == "b"
    monkeypatch.setattr(
        "sys.stdin", io.TextIOWrapper(io.BytesIO(b"id,cpus,mem_mb\n\xff,1,1\n"), errors="surrogateescape")
    )
    with pytest.raises(BadTable, match="standard input, after line 1: is not UTF-8 text"):
        read_tasks(Path("-"))


HEAD = "id,cpus,mem_mb,count,constraint,arrive_s,leave_s\n"


@pytest.mark.parametrize(
    ("text", "where", "problem"),
    [
        ("", "line 1, column id, cpus, mem_mb", "are missing"),
        ("id,cpus\na,1\n", "line 1, column mem_mb", "is missing"),
        ("id,cpus,mem_mb,cpus\na,1,1,1\n", "line 1, column cpus", "twice"),
        ("id,cpus,mem_mb,\na,1,1,1\n", "line 1, column 4", "no name"),
        ("id,cpus,mem_mb\n", "", "contains no tasks"),
        ("id|cpus|mem_mb\na|1|1\n", "line 1, column id, cpus, mem_mb", "are missing"),
        ("name,Task,cpus,mem_mb\na,b,1,1\n", "line 1, column id", "the columns name and Task mean the same"),
        ("id,cpus,CPUs,mem_mb\na,1,2,1\n", "line 1, column cpus", "the columns cpus and CPUs mean the same"),
        ("id,cpus,mem_mb,Memory (GB)\na,1,2,1\n", "line 1, column mem_mb", "mean the same"),
        ("id,CPU %,mem_mb\na,50,1\n", "line 1, column cpus", "is missing"),
        ("job,host,cpus,mem_mb\na,h1,1,1\n", "line 2, column host", "'h1' is not a number"),
        (",id,cpus,mem_mb\n0,a,1,1\n", "line 1, column 1", "has no name"),
        ("Unnamed: 0,id,cpus,mem_mb\n0,a,1,1\n", "line 1, column 1", "has no name"),
        ("id;cpus;mem_mb\na;0,5;1\n", "line 2, column cpus", "'0,5' is not a number"),
        ("id,cpus,mem_mb" + ",r" * 1_000 + "\n", "line 1", "there are 1,003 columns"),
        (
            "id,cpus,mem_mb\na,1,1\n" + 'b,"' + '\n","' * 300_000,
            "after line 2",
            "the row has more than 1,000,000 characters",
        ),
        ("id," * 400_000, "after line 1", "the row has more than 1,000,000 characters"),
        ("id,cpus,mem_mb," + "x" * 201 + "\na,1,1,1\n", "line 1, column 4", "its name has 201 characters"),
        ("\n,,\n\n", "line 1, column id, cpus, mem_mb", "are missing"),
        ("job,cpus,mem_mb\n,1,1\n", "line 2, column job", "is empty"),
        (HEAD + "a,1,500m,,,,\n", "line 2, column mem_mb", "unknown unit"),
        (HEAD + "a,1Gi,1,,,,\n", "line 2, column cpus", "'1Gi' is not a number"),
        (HEAD + "a,1,5000000Ti,,,,\n", "line 2, column mem_mb", "out of range"),
        (HEAD + "a,1,1,1m,,,\n", "line 2, column count", "'1m' is not a number"),
        ("id,cpus,mem_mb,attr_\na,1,1,x\n", "line 1, column 4", "no name"),
        ("id,cpus,mem_mb,attr_host\na,1,1,x\n", "line 1, column attr_host", "cannot be given"),
        ("id,cpus,mem_mb,gp\0us\na,1,1,1\n", "line 1, column 4", "cannot be printed"),
        (HEAD + "a\0b,1,1,,,,\n", "line 2, column id", "'a\\x00b' contains a character that cannot be printed"),
        (HEAD + '"a\nb",1,1,,,,\n', "line 3, column id", "cannot be printed"),
        (HEAD + "a\x1b[31m,1,1,,,,\n", "line 2, column id", "cannot be printed"),
        (HEAD + "a\u202eb,1,1,,,,\n", "line 2, column id", "cannot be printed"),
        (HEAD + "a,1\0,1,,,,\n", "line 2, column cpus", "not a number"),
        (HEAD + "a,,1,,,,\n", "line 2, column cpus", "is empty"),
        (HEAD + "a,1_000,1,,,,\n", "line 2, column cpus", "'1_000' is not a number"),
        (HEAD + "a,\uff11\uff12,1,,,,\n", "line 2, column cpus", "is not a number"),
        (HEAD + "a,1e400,1,,,,\n", "line 2, column cpus", "out of range"),
        (HEAD + "a,1e99999999999999999999,1,,,,\n", "line 2, column cpus", "out of range"),
        (HEAD + "a," + "1" * 5_000 + ",1,,,,\n", "line 2, column cpus", "out of range"),
        (HEAD + "a,one,1,,,,\n", "line 2, column cpus", "'one' is not a number"),
        (HEAD + "a,1,nan,,,,\n", "line 2, column mem_mb", "'nan' is not a number"),
        (HEAD + "a,1,inf,,,,\n", "line 2, column mem_mb", "'inf' is not a number"),
        (HEAD + "a,1,-1,,,,\n", "line 2, column mem_mb", "'-1' is negative"),
        (HEAD + "a,1,1e30,,,,\n", "line 2, column mem_mb", "out of range"),
        (HEAD + "a,1,1e999999999,,,,\n", "line 2, column mem_mb", "out of range"),
        (HEAD + "a,1,1,0,,,\n", "line 2, column count", "out of range"),
        (HEAD + "a,1,1,2.5,,,\n", "line 2, column count", "too many decimals"),
        (HEAD + "a,1,1,99999999999,,,\n", "line 2, column count", "out of range"),
        (HEAD + "a,1,1,,anti:b<=x,,\n", "line 2, column constraint", "not a rule"),
        (HEAD + "a,1,1,,max_per_host=0,,\n", "line 2, column constraint", "not a limit"),
        (HEAD + "a,1,1,,zone,,\n", "line 2, column constraint", "not a constraint"),
        (HEAD + "a,1,1,,,5,4.5\n", "line 2, column leave_s", "leaves at 4.5 but arrives at 5"),
        (HEAD + "a,1,1,,,5,5\n", "line 2, column leave_s", "only tasks that leave when they arrive"),
        (HEAD + "a,1,1,,,x,5\n", "line 2, column arrive_s", "not a number"),
        (HEAD + ",1,1,,,,\n", "line 2, column id", "is empty"),
        (HEAD + "a,1,1,,,,\nb,1,1,,,,\na,1,1,,,,\n", "line 4, column id", "'a' is given twice"),
        (HEAD + "a,1,1\n", "line 2", "has 3 fields; the first line has 7"),
        ("id,cpus,mem_mb,owner\na,1,1,bob\n", "line 2, column owner", "'bob' is not a number"),
        (b"id,cpus,mem_mb\n\xff\xfe,1,1\n", "after line 1", "not UTF-8"),
        ('id,cpus,mem_mb\n"a,1,1\n', "line 2", "is not CSV"),
        (b"id,cpus,mem_mb\n" + b"a" * 200_000 + b",1,1\n", "line 2", "is not CSV"),
    ],
)
def test_bad_table_is_reported(write: Write, text: str | bytes, where: str, problem: str) -> None:
    path = write(text)
    with pytest.raises(BadTable) as caught:
        read_tasks(path)
    assert caught.value.field.startswith(str(path))
    assert caught.value.field.endswith(where)
    assert problem in caught.value.problem


def test_port_range_must_ascend(write: Write) -> None:
    with pytest.raises(BadTable, match="column port_end: 1 is below port_beg 2"):
        read_hosts(write("id,cpus,mem_mb,port_beg,port_end\na,1,1,2,1\n"))


def test_several_errors_are_reported_at_once(write: Write) -> None:
    rows = "".join(f"t{i},x,1\n" for i in range(100))
    with pytest.raises(BadTable) as caught:
        read_tasks(write("id,cpus,mem_mb\nok,1,1\n" + rows))
    assert [fault.field.rpartition("line ")[2] for fault in caught.value.others] == [
        f"{line}, column cpus" for line in range(4, 13)
    ]


def test_unreadable_file_is_reported(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none.csv"):
        with pytest.raises(BadTable, match="cannot be read"):
            read_hosts(path)


def test_too_many_rows_or_tasks_are_refused(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BadTable, match="are more than 10,000,000"):
        read_tasks(write("id,cpus,mem_mb,count\na,1,1,6000000\nb,1,1,6000000\n"))
    monkeypatch.setattr("jobcloud.planning.tables.MAX_ROWS", 3)
    assert len(read_tasks(write("id,cpus,mem_mb\na,1,1\nb,1,1\nc,1,1\n")).rows) == 3
    with pytest.raises(BadTable, match="line 5: there are more than 3 rows"):
        read_tasks(write("id,cpus,mem_mb\na,1,1\nb,1,1\nc,1,1\nd,1,1\n"))


def test_rules_are_parsed() -> None:
    rules = parse_rules("max_per_host=4; anti:a<=2;b x<=0;a<=1;zone in x, y;max_per_host=3;cores >= 8")
    assert rules.max_per_host == 3
    assert rules.neighbours == {"a": 1, "b x": 0}
    assert [c.attribute for c in rules.attributes] == ["zone", "cores"]
    assert parse_rules("") == parse_rules(" ; ")
    assert parse_rules("max_per_host=99999999999999") == parse_rules("")
    assert parse_rules("cores <= 16").attributes[0].holds({"cores": "9"})
    assert parse_rules("zone==a").attributes[0].holds({"zone": "a"})


@pytest.mark.parametrize(
    "text", ["anti:", "anti:a", "anti:a<=-1", "anti:a<=1.5", "max_per_host", "max_per_host=-1", "=a", "a=|"]
)
def test_empty_rules_are_parsed(text: str) -> None:
    with pytest.raises(ConstraintError):
        parse_rules(text)


@pytest.mark.parametrize(
    ("text", "column", "thousandths"),
    [
        ("500m", "cpus", 500),
        ("0.5", "cpus", 500),
        ("512Mi", "mem_mb", 512_000),
        ("2 GiB", "mem_mb", 2_048_000),
        ("2GB", "mem_mb", 2_048_000),
        ("1.5g", "mem_mb", 1_430_512),
        ("16009632Ki", "mem_mb", 15_634_407),
        ("1048576B", "disk_mb", 1_000),
        ("1e-999999999", "cpus", 1),
        ("0.0001", "cpus", 1),
        ("0.30000000000000004", "cpus", 300),
        ("0.10000000149", "cpus", 100),
        ("4096.0", "mem_mb", 4_096_000),
    ],
)
def test_amounts_have_units_and_are_rounded_up(text: str, column: str, thousandths: int) -> None:
    assert parse(text, column).thousandths == thousandths


def test_amounts_of_hosts_are_rounded_down(write: Write) -> None:
    table = read_hosts(write("id,cpus,mem_mb\na,1.0009,16009632Ki\nb,1,1\nc,1.0009,1\n"))
    assert [row.amounts for row in table.rows][::2] == [(1_000, 15_634_406), (1_000, 1_000)]
    assert table.notes[0].endswith("3 numbers have more than three decimals; amounts are rounded down to thousandths")


def test_each_rounded_number_is_counted_in_equal_rows_too(write: Write) -> None:
    table = read_tasks(write("id,cpus,mem_mb\na,0.12345,1\nb,0.12345,1\nc,0.5,1\n"))
    assert table.rows[1].amounts == (124, 1_000)
    assert table.notes[0].endswith("2 numbers have more than three decimals; amounts are rounded up to thousandths")
    assert read_tasks(write("id,cpus,mem_mb\na,0.1,1.000\n")).notes == ()


@pytest.mark.parametrize("separator", [";", "\t"])
def test_fields_may_have_another_separator(write: Write, separator: str) -> None:
    text = 'id,cpus,mem_mb,constraint\na,1,1,"max_per_host=2"\n'.replace(",", separator)
    (row,) = read_tasks(write(text)).rows
    assert (row.amounts, row.rules.max_per_host) == ((1_000, 1_000), 2)


def test_common_names_of_columns_are_known(write: Write) -> None:
    table = read_hosts(write("Name,vCPU,Memory (GiB),Disk_GB,Attr_Zone,Cost\na,500m,2,1,b,3\n"))
    assert table.dimensions == ("cpus", "mem_mb", "disk_mb")
    (row,) = table.rows
    assert (row.id, row.amounts, row.price) == ("a", (500, 2_048_000, 1_024_000), 3.0)
    assert row.attributes == {HOST: "a", "Zone": "b"}
    assert read_hosts(
        write("id,memory_gb,cpus\na,512Mi,1\n"),
    ).rows[0].amounts == (512_000, 1_000)
    assert read_hosts(write("ID,CPUS,MEM_MB,RDMA\na,1,1,2\n")).dimensions == ("cpus", "mem_mb", "rdma")
    with pytest.raises(BadTable, match="column id: the columns id and name mean the same"):
        read_hosts(write("id,name,cpus,mem_mb\na,x,1,1\n"))


def test_memory_without_a_unit_is_noted(write: Write) -> None:
    assert read_tasks(write("id,cpus,Memory\na,1,8\n")).notes == (
        f"{write('')}: numbers without a unit in the column Memory are MB",
    )
    for head, cell in (("Memory", "8Gi"), ("Memory (MB)", "8"), ("mem_mb", "8"), ("Memory (GiB)", "8")):
        assert read_tasks(write(f"id,cpus,{head}\na,1,{cell}\n")).notes == ()


def test_blank_rows_are_left_out(write: Write) -> None:
    assert len(read_tasks(write("\n;;\nid;cpus;mem_mb\na;1;1\n;;\n  \n ; \n\nb;1;1\n".replace(";", ","))).rows) == 2


def test_tasks_of_no_duration_do_not_count(write: Write) -> None:
    table = read_tasks(write("id,cpus,mem_mb,arrive_s,leave_s,count\na,1,1,5,5,3\nb,1,1,5,6,1\n"))
    assert [row.id for row in table.rows] == ["b"]
    assert table.notes[0].endswith(": 3 tasks leave when they arrive, so they do not count")


def test_tasks_may_have_a_job_and_no_id(write: Write) -> None:
    rows = read_tasks(write("job,cpus,mem_mb,count\na,1,1,2\nb,1,1,\na,2,1,\n")).rows
    assert [(row.id, row.job, row.copies) for row in rows] == [("a/1", "a", 2), ("b/1", "b", 1), ("a/2", "a", 1)]
    with pytest.raises(BadTable, match="column id: is missing"):
        read_hosts(write("job,cpus,mem_mb\na,1,1\n"))


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        ("id,cpus,mem_mb\na,1,1\n".encode("utf-16"), "is UTF-16 text"),
        (b"PK\x03\x04\xff\xff", "is a workbook or a zip archive"),
        (b"\x1f\x8b\x08\x00\xff\xff", "is compressed by gzip"),
        ("id,cpus,mem_mb\n".encode("utf-16-le"), "is UTF-16 or UTF-32 text"),
        ("id,cpus,mem_mb\n".encode("utf-16-be"), "is UTF-16 or UTF-32 text"),
        ("id,cpus,mem_mb\n".encode("utf-32"), "is UTF-32 text"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "is a workbook"),
        ("id,cpus,mem_mb\nb\xfcro,1,1\n".encode("cp1252"), "perhaps it is Windows-1252 .*iconv -f Windows-1252"),
        ("id,cpus,mem_mb\n报表,1,1\n".encode("gb18030"), "perhaps it is GB18030 .*iconv -f GB18030"),
        (b"id,cpus,mem_mb\n\x81x,1,1\n", "is not UTF-8 text \\(save it as UTF-8\\)"),
    ],
)
def test_other_encodings_are_named(write: Write, data: bytes, problem: str) -> None:
    with pytest.raises(BadTable, match=problem):
        read_tasks(write(data))

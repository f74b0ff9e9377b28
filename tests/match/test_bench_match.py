"""bench/match.py on CSV files."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

PROGRAM = Path(__file__).resolve().parents[2] / "bench" / "match.py"


def run(folder: Path, files: dict[str, str], *options: str) -> subprocess.CompletedProcess[str]:
    for name, text in files.items():
        (folder / f"{name}.csv").write_text(text)
    command = [
        sys.executable,
        str(PROGRAM),
        "--json",
        *(word for name in files for word in (f"--{name}", f"{name}.csv")),
    ]
    return subprocess.run([*command, *options], cwd=folder, capture_output=True, text=True, check=False, timeout=60)


def answer(folder: Path, files: dict[str, str], *options: str) -> Any:
    done = run(folder, files, *options)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


HOSTS = "id,cpus,mem_mb,attr_zone,port_beg,port_end,count\na,4,8000,x,31000,31001,1\nb,4,8000,y,,,2\n"


@pytest.mark.parametrize(
    ("tasks", "placed", "refused", "hosts_used"),
    [
        ("id,cpus,mem_mb\nt1,0.5,100\nt2,5,100\n", 1, 1, 1),
        ("id,cpus,mem_mb,count\nt,1,100,20\n", 12, 8, 3),
        ("id,cpus,mem_mb,ports,count\nt,1,100,1,3\n", 2, 1, 1),
        ("id,cpus,mem_mb,count,constraint\nt,1,100,20,zone=x\n", 4, 16, 1),
        ("id,cpus,mem_mb,count,constraint\nt,1,100,20,zone == y; max_per_host=2\n", 4, 16, 2),
        ("id,cpus,mem_mb,count,constraint\nt,1,100,20,anti:t<=2\n", 9, 11, 3),
        ("id,cpus,mem_mb,count,constraint\nt,1,1,3,max_per_host=1;anti:u<=0\nu,1,1,1,\n", 3, 1, 3),
    ],
)
def test_tasks_are_placed_by_the_columns_of_their_file(
    tmp_path: Path, tasks: str, placed: int, refused: int, hosts_used: int
) -> None:
    result = answer(tmp_path, {"hosts": HOSTS, "tasks": tasks}, "--repeat", "1")
    assert (result["placed"], result["refused"], result["hosts_used"]) == (placed, refused, hosts_used)
    assert result["api_seconds"] > 0
    assert result["native_seconds"] > 0
    assert result["vector_path"]


def test_rows_that_are_read_differently_are_noted(tmp_path: Path) -> None:
    tasks = "id,cpus,mem_mb,arrive_s,leave_s\nt,1,1,0,-1\nu,1,1,5,5\n"
    done = run(tmp_path, {"hosts": HOSTS.replace(",4,", ",4.00001,"), "tasks": tasks})
    assert (done.returncode, json.loads(done.stdout)["placed"]) == (0, 1)
    assert "hosts.csv: 2 numbers have more than three decimals" in done.stderr
    assert "tasks.csv: 1 task leaves when it arrives" in done.stderr


def test_engine_and_fitness_are_chosen_by_name(tmp_path: Path) -> None:
    files = {"hosts": HOSTS, "tasks": "id,cpus,mem_mb,count\nt,1,100,3\n"}
    assert answer(tmp_path, files, "--engine", "scan", "--fitness", "spread")["hosts_used"] == 3
    assert answer(tmp_path, files, "--fitness", "align=512,pack=512")["hosts_used"] == 1
    assert "none such" in run(tmp_path, files, "--fitness", "none such").stderr


def test_churn_rounds_end_and_start_tasks(tmp_path: Path) -> None:
    files = {
        "hosts": HOSTS,
        "fill": "id,host,cpus,mem_mb\nf1,a,4,1\nf2,b#0,4,1\nf3,b#1,4,1\n",
        "churn": "iter,op,id,cpus,mem_mb\n0,add,n1,4,1\n1,del,f1,,\n1,del,n1,,\n1,add,n2,3,1\n2,add,n3,1,1\n",
    }
    result = answer(tmp_path, files)
    assert (result["placed"], result["refused"], result["hosts_used"]) == (2, 1, 1)


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"hosts": HOSTS, "tasks": "id,cpus\nt,1\n"}, "tasks.csv, line 1, column mem_mb"),
        ({"hosts": HOSTS, "tasks": "id,cpus,mem_mb,gpus\nt,1,1,1\n"}, "hosts.csv, column gpus"),
        ({"hosts": HOSTS, "tasks": "id,cpus,mem_mb,arrive_s\nt,1,1,0\nu,1,1,5\n"}, "line 3, column arrive_s, leave_s"),
        ({"hosts": HOSTS, "tasks": "id,cpus,mem_mb,constraint\nt,1,1,anti:u<=2\n"}, "anti:u<=2 is not 0"),
        (
            {"hosts": HOSTS, "fill": "id,host,cpus,mem_mb\nf,nowhere,1,1\n", "churn": "iter,op,id,cpus,mem_mb\n"},
            "there is no host 'nowhere'",
        ),
        (
            {"hosts": HOSTS, "fill": "id,host,cpus,mem_mb\n", "churn": "iter,op,id,cpus,mem_mb\n0,put,n,1,1\n"},
            "churn.csv, line 2, column op: 'put' is not an operation",
        ),
        ({"hosts": HOSTS}, "give --tasks, or --fill and --churn"),
    ],
)
def test_bad_file_is_reported_with_line_and_column(tmp_path: Path, files: dict[str, str], words: str) -> None:
    done = run(tmp_path, files)
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr

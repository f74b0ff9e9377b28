"""Hosts from the JSON of Kubernetes, Mesos and Slurm.

The data has the form of real output, with other names: kubectl 1.27, Mesos 1.11.0 (`DRAIN_AGENT` for the last agent),
scontrol of Slurm 24.11 (data_parser v0.0.42) and 21.08 (openapi v0.0.37).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from jobcloud.match.constraints import HOST
from jobcloud.planning.amounts import BadAmount, quantity
from jobcloud.planning.nodes import BadNodes
from jobcloud.planning.tables import read_hosts

DATA = Path(__file__).parent / "nodes"


def test_nodes_of_kubernetes_are_read() -> None:
    table = read_hosts(DATA / "kubectl.json")
    assert table.dimensions == ("cpus", "mem_mb", "disk_mb", "gpus", "ports")
    worker, gpu = table.rows
    assert worker.id == "worker-1"
    assert worker.amounts == (3_920, 14_162_000, 91_136_000, 0, 0)
    assert worker.attributes["zone"] == worker.attributes["topology.kubernetes.io/zone"] == "eu-1a"
    assert worker.attributes[HOST] == "worker-1"
    # 79160000 Ki, and 1793577558043 bytes without a unit
    assert gpu.amounts == (32_000, 77_304_687, 1_710_488_851, 4_000, 0)
    assert table.notes[0].endswith("3 hosts accept no tasks and are left out")


@pytest.mark.parametrize("name", ["state.json", "slaves.json"])
def test_agents_of_mesos_are_read(name: str) -> None:
    table = read_hosts(DATA / name)
    plain, reserved = table.rows
    assert (plain.id, plain.amounts) == ("agent-1", (2_000, 999_000, 69_716_000, 0, 1_001_000))
    assert plain.attributes == {HOST: "agent-1", "rack": "r1", "level": "123"}
    assert reserved.amounts == (4_000, 14_021_000, 35_566_000, 1_000, 31_998_000)
    assert table.notes[0].endswith("2 hosts accept no tasks and are left out")


def test_agents_of_mesos_may_share_a_host(tmp_path: Path) -> None:
    agents = [{"hostname": "a", "port": port, "resources": {"cpus": 1.0, "mem": 1.0}} for port in (5051, 5052)]
    path = tmp_path / "slaves.json"
    path.write_text(json.dumps({"slaves": [*agents, {"hostname": "b"}]}), encoding="utf-8")
    rows = read_hosts(path).rows
    assert [row.id for row in rows] == ["a:5051", "a:5052", "b"]
    assert rows[0].attributes == {HOST: "a"}
    path.write_text(json.dumps({"slaves": [agents[0], agents[0]]}), encoding="utf-8")
    with pytest.raises(BadNodes, match="'a:5051' is given twice"):
        read_hosts(path)


def test_nodes_of_slurm_are_read() -> None:
    table = read_hosts(DATA / "scontrol.json")
    compute, gpu = table.rows
    assert (compute.id, compute.amounts) == ("compute-0", (6_000, 14_962_000, 0, 0, 0))
    assert compute.attributes == {HOST: "compute-0", "partition": "batch", "avx512": "true"}
    assert gpu.amounts == (32_000, 127_927_000, 1_000, 3_000, 0)
    assert table.notes[0].endswith("2 hosts accept no tasks and are left out")


def test_nodes_of_an_old_slurm_are_read() -> None:
    """Features are one text, and flags such as DRAIN are not in the state. Nodes that save power accept jobs."""
    table = read_hosts(DATA / "scontrol-21.08.json")
    gpu, cloud = table.rows
    assert (gpu.id, gpu.amounts) == ("node-1", (2_000, 1_800_000, 0, 16_000, 0))
    assert gpu.attributes == {HOST: "node-1", "partition": "batch", "site=north": "true", "nvme": "true"}
    assert (cloud.id, cloud.attributes) == ("node-2", {HOST: "node-2"})
    assert table.notes[0].endswith("2 hosts accept no tasks and are left out")


@pytest.mark.parametrize(
    ("text", "of", "thousandths"),
    [
        ("3920m", 1, 3_920),
        ("1k", 1, 1_000_000),
        ("2500000000n", 1, 2_500),
        ("1Ti", 2**20, 1_048_576_000),
        ("1E", 2**20, 953_674_316_406_250),
        ("12E2", 1, 1_200_000),
        ("1e3", 2**20, 0),
        ("128974848000m", 2**20, 123_000),
    ],
)
def test_quantities_of_kubernetes_are_read(text: str, of: int, thousandths: int) -> None:
    assert quantity(text, of).thousandths == thousandths


@pytest.mark.parametrize("text", ["", "1mi", "1KB", "Mi", "1e", "nan"])
def test_other_texts_are_no_quantities(text: str) -> None:
    with pytest.raises(BadAmount):
        quantity(text)


@pytest.mark.parametrize(
    ("data", "where", "problem"),
    [
        ("{", "", "is not JSON"),
        ("[" * 100_000, "", "is not JSON"),
        ("[]", "", "unknown form"),
        ({"agents": []}, "", "unknown form"),
        ({"slaves": []}, ", slaves", "is not a list of 1 to"),
        ({"slaves": [1]}, ", slaves[0]", "is not an object"),
        ({"slaves": [{"hostname": "a", "resources": {"cpus": -1}}]}, ", slaves[0].resources.cpus", "is negative"),
        ({"slaves": [{"hostname": "a", "resources": {"cpus": True}}]}, ", slaves[0].resources.cpus", "not an amount"),
        ({"slaves": [{"hostname": "a\x1b"}]}, ", slaves[0].hostname", "is not a name"),
        ({"slaves": [{"hostname": "a"}, {"hostname": "a"}]}, ", slaves[1]", "is given twice"),
        ({"slaves": [{"hostname": "a", "active": False}]}, "", "none of the 1 hosts accepts tasks"),
        ({"slaves": [{"hostname": []}]}, ", slaves[0].hostname", "is not a name"),
        ({"items": [{"kind": "Pod"}]}, ", items[0].kind", "'Pod' is not a node"),
        ({"nodes": [{"name": "a", "state": 5}]}, ", nodes[0].state", "is not a list"),
    ],
)
def test_other_json_is_refused(tmp_path: Path, data: Any, where: str, problem: str) -> None:
    path = tmp_path / "nodes.json"
    path.write_text(data if isinstance(data, str) else json.dumps(data), encoding="utf-8")
    with pytest.raises(BadNodes, match=problem) as caught:
        read_hosts(path)
    assert caught.value.field == f"{path}{where}"

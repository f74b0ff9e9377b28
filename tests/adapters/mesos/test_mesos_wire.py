"""Conversion between Mesos' JSON and our values: kept, ignored and refused parts."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from jobcloud.adapters.mesos.wire import (
    Access,
    Json,
    dumps,
    ids,
    launch_operation,
    loads,
    read_common,
    read_offer,
    read_share,
    read_status,
    thousandths,
)
from jobcloud.errors import ConfigError
from jobcloud.messages import Launch, Status
from jobcloud.model import Executor, Offer, Share, Window
from jobcloud.wire import decode_data

OURS = ("eng/dev", "ops")


def scalar(name: str = "cpus", value: float = 1.0, **more: Any) -> Json:
    return {"name": name, "type": "SCALAR", "scalar": {"value": value}, **more}


def reserved(*roles: str, **more: Any) -> Json:
    return scalar(reservations=[{"type": "DYNAMIC", "role": role} for role in roles], **more)


def offer(**more: Any) -> Json:
    return {"id": {"value": "o"}, "agent_id": {"value": "a"}, "hostname": "host", **more}


@pytest.mark.parametrize(
    ("value", "amount"),
    [
        (0, 0),
        (1.5, 1500),
        (0.1, 100),
        (0.0014, 1),
        (0.0016, 2),
        (2.5001, 2500),
        (0.30000000000000004, 300),
        (1e9, 10**12),
    ],
)
def test_amounts_are_rounded_to_thousandths(value: float, amount: int) -> None:
    assert thousandths(value) == amount


@pytest.mark.parametrize("value", [-0.1, 1e300, float("inf"), float("nan"), -1])
def test_invalid_amounts_are_refused(value: float) -> None:
    with pytest.raises(ValueError, match="not an amount"):
        thousandths(value)


@given(st.integers(0, 2**50))
def test_every_amount_survives_a_round_trip(amount: int) -> None:
    executor = Executor("e", "a", "app", (Share("cpus", amount),), "{}")
    sent = loads(dumps(launch_operation([Launch("t", "t", (Share("mem", amount),), executor, b"")], "a", "f")))
    task = sent["launch"]["task_infos"][0]
    for resource in (*task["resources"], *task["executor"]["resources"]):
        assert read_share(resource, ("*",)) == Share(resource["name"], amount)


RESOURCES = [
    scalar("cpus", 3.25, allocation_info={"role": "ops"}, role="*"),
    scalar("mem", 512.0, allocation_info={"role": "ops"}, reservations=[{"role": "ops", "type": "STATIC"}]),
    scalar("gpus", 2.0),
    {
        "name": "ports",
        "type": "RANGES",
        "ranges": {"range": [{"begin": 31000, "end": 31009}, {"begin": 40000, "end": 40000}]},
        "allocation_info": {"role": "ops"},
    },
    scalar("disk", 100.0, reservations=[{"role": "ops", "labels": {"labels": [{"key": "k", "value": "ü"}]}}]),
]


def test_resources_of_an_offer_are_returned_unchanged() -> None:
    read = read_offer(offer(resources=RESOURCES), OURS).shares
    assert [(share.name, share.amount, share.reserved) for share in read] == [
        ("cpus", 3250, False),
        ("mem", 512_000, True),
        ("gpus", 2000, False),
        ("ports", 11_000, False),
        ("disk", 100_000, True),
    ]
    assert read[3].ranges == ((31000, 31009), (40000, 40000))
    launch = Launch("t", "t", read, Executor("e", "a", "app", (), "{}"), b"")
    assert loads(dumps(launch_operation([launch], "a", "f")))["launch"]["task_infos"][0]["resources"] == RESOURCES


def test_access_to_secrets_is_added_to_the_data_of_tasks_that_need_it() -> None:
    executor = Executor("e", "a", "app", (), "{}")
    plain, secret = Launch("t1", "t", (), executor, b'{"schema":1}'), Launch("t2", "t", (), executor, b'{"schema":2,')
    secret = structs.replace(secret, shared=b'"job":{}}', secrets=("db-password",))
    asked: list[tuple[str, str]] = []

    def access(launch: Launch, agent_id: str) -> bytes:
        asked.append((launch.task_id, agent_id))
        return b'{"token":"x"}'

    def data(access: Access | None) -> list[Any]:
        sent = loads(dumps(launch_operation([plain, secret], "a", "f", access)))
        return [json.loads(decode_data(task["data"])) for task in sent["launch"]["task_infos"]]

    assert data(access) == [{"schema": 1}, {"secretAccess": {"token": "x"}, "schema": 2, "job": {}}]
    assert asked == [("t2", "a")]
    assert data(None) == [{"schema": 1}, {"schema": 2, "job": {}}]


def test_origin_does_not_depend_on_the_order_of_fields() -> None:
    resource = scalar(role="*", allocation_info={"role": "ops"})
    mirrored = dict(reversed(resource.items()))
    assert read_share(resource, OURS) == read_share(mirrored, OURS)
    share = read_share(resource, OURS)
    assert share is not None
    assert json.loads(share.origin) == {"role": "*", "allocation_info": {"role": "ops"}}


@pytest.mark.parametrize(
    "resource",
    [
        scalar(revocable={}),
        scalar(shared={}),
        scalar("disk", disk={"persistence": {"id": "p"}, "volume": {"container_path": "x"}}),
        scalar("disk", disk={"source": {"type": "MOUNT"}}),
        scalar("disk", disk={"volume": {"container_path": "x"}}),
        scalar("disk", provider_id={"value": "p"}),
        {"name": "zones", "type": "SET", "set": {"item": ["a"]}},
        {"name": "new", "type": "TENSOR"},
        scalar(role="other", reservation={"principal": "x"}),
        reserved("other"),
        reserved("ops", "other"),
        reserved("op"),
        scalar(allocation_info={"role": "other"}),
    ],
)
def test_unusable_resources_are_ignored(resource: Json) -> None:
    assert read_offer(offer(resources=[resource, scalar("mem", 1.0)]), OURS).shares == (Share("mem", 1000),)


@pytest.mark.parametrize(
    ("resource", "expected"),
    [
        (reserved("ops"), True),
        (reserved("other", "ops"), True),
        (reserved("eng"), True),
        (reserved("eng", "eng/dev"), True),
        (scalar(role="ops"), True),
        (scalar(role="*"), False),
        (scalar(reservations=[]), False),
        (scalar("disk", disk={}), False),
    ],
)
def test_reservations_to_our_roles_and_their_ancestors_are_ours(resource: Json, expected: bool) -> None:
    share = read_share(resource, OURS)
    assert share is not None
    assert share.reserved is expected


@pytest.mark.parametrize(("begin", "end"), [(5, 4), (-1, 4), (0, 65_536), (0.5, 1), ("1", 2), (None, 2)])
def test_ranges_that_are_not_ports_are_refused(begin: Any, end: Any) -> None:
    resource = {"name": "ports", "type": "RANGES", "ranges": {"range": [{"begin": begin, "end": end}]}}
    with pytest.raises((ValueError, TypeError)):
        read_share(resource, OURS)


def test_offer_names_the_role_that_it_is_allocated_to() -> None:
    assert read_offer(offer(allocation_info={"role": "ops"}), OURS).role == "ops"
    assert read_offer(offer(), OURS).role == "*"
    with pytest.raises(TypeError, match="7 is not a role"):
        read_offer(offer(allocation_info={"role": 7}), OURS)


def test_offer_is_parsed_with_host_address_attributes_and_maintenance() -> None:
    read = read_offer(
        offer(
            url={"scheme": "http", "address": {"hostname": "h.example", "ip": "10.0.0.1", "port": 5051}},
            attributes=[
                {"name": "rack", "type": "TEXT", "text": {"value": "r1"}},
                {"name": "level", "type": "SCALAR", "scalar": {"value": 2.0}},
                {"name": "speed", "type": "SCALAR", "scalar": {"value": 2.5}},
                {"name": "slots", "type": "RANGES", "ranges": {"range": [{"begin": 1, "end": 3}]}},
                {"name": "disks", "type": "SET", "set": {"item": ["hdd", "ssd"]}},
                {"name": "odd", "type": "OTHER"},
            ],
            unavailability={"start": {"nanoseconds": 1_700_000_000_123_456_789}, "duration": {"nanoseconds": 10**9}},
        ),
        OURS,
    )
    assert (read.id, read.agent_id, read.hostname, read.address) == ("o", "a", "host", "10.0.0.1:5051")
    assert read.attributes == (
        ("rack", "r1"),
        ("level", "2"),
        ("speed", "2.5"),
        ("slots", "[1-3]"),
        ("disks", "{hdd, ssd}"),
    )
    assert read.unavailable == Window(1_700_000_000_123, 1_700_000_001_123)


@pytest.mark.parametrize(
    ("address", "expected"),
    [({"ip": "::1", "port": 5051}, "[::1]:5051"), ({"port": 5051}, "host:5051"), ({"hostname": "h"}, ""), ({}, "")],
)
def test_address_of_an_agent_is_formatted_as_in_urls(address: Json, expected: str) -> None:
    assert read_offer(offer(url={"address": address}), OURS).address == expected


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/slave(1)", "/slave(1)"),
        ("/a/b.c/", "/a/b.c"),
        ("", ""),
        ("/", ""),
        ("/x?y=1", ""),
        ("//evil", ""),
        ("@h", ""),
    ],
)
def test_agents_that_share_a_port_differ_by_path(path: str, expected: str) -> None:
    url = {"address": {"ip": "10.0.0.1", "port": 5051}, "path": path}
    assert read_offer(offer(url=url), OURS).address == "10.0.0.1:5051" + expected


def test_status_is_parsed_with_its_data() -> None:
    status = {
        "task_id": {"value": "t"},
        "agent_id": {"value": "a"},
        "state": "TASK_FAILED",
        "uuid": "dXVpZA==",
        "reason": "REASON_X",
        "source": "SOURCE_EXECUTOR",
        "message": "boom",
        "data": base64.b64encode('{"ü":1}'.encode()).decode(),
        "healthy": True,
    }
    read = read_status(status)
    assert (read.task_id, read.agent_id, read.state, read.uuid) == ("t", "a", "TASK_FAILED", "dXVpZA==")
    assert (read.reason, read.source, read.message, read.data) == ("REASON_X", "SOURCE_EXECUTOR", "boom", '{"ü":1}')


def test_minimal_status_has_empty_texts() -> None:
    read = read_status({"task_id": {"value": "t"}, "state": "TASK_NEVER_HEARD_OF"})
    assert (read.agent_id, read.state, read.uuid, read.data) == ("", "TASK_NEVER_HEARD_OF", "", "")


@pytest.mark.parametrize("data", ["%%%", "gIA=", "abc"])
def test_status_data_that_is_not_text_is_ignored(data: str) -> None:
    assert read_status({"task_id": {"value": "t"}, "state": "TASK_RUNNING", "data": data}).data == ""


# ------------------------------------------------------------------------- the fast path for most events

# Values that replace parts of an event at random.
JUNK: st.SearchStrategy[Any] = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=3) | st.just({})
)
NAMES = st.sampled_from(["cpus", "mem", "ports", "eng/dev", "ops", "else", "/x", ""])
BASE64 = st.binary(max_size=6).map(base64.b64encode).map(bytes.decode) | st.text("ab=+/\n", max_size=8)
VALUE = st.fixed_dictionaries({"value": NAMES})
STATUSES = st.fixed_dictionaries(
    {"task_id": VALUE, "state": st.sampled_from(["TASK_RUNNING", "TASK_NEW"])},
    optional={"agent_id": VALUE, "uuid": BASE64, "reason": NAMES, "message": st.text(max_size=5), "data": BASE64},
)
ROLE = st.fixed_dictionaries({"role": st.sampled_from(["eng/dev", "ops", "else"])})
AMOUNT = st.fixed_dictionaries({"value": st.floats(0, 1e6) | st.integers(0, 9_000)})
SPAN = st.fixed_dictionaries({"begin": st.integers(0, 40_000), "end": st.integers(30_000, 66_000)})
SPANS = st.fixed_dictionaries({"range": st.lists(SPAN, max_size=2)})
USUAL = st.fixed_dictionaries(
    {"name": NAMES, "type": st.just("SCALAR"), "scalar": AMOUNT, "allocation_info": ROLE}
) | st.fixed_dictionaries({"name": NAMES, "type": st.just("RANGES"), "ranges": SPANS, "allocation_info": ROLE})
ADDRESS = st.fixed_dictionaries({}, optional={"ip": NAMES, "hostname": NAMES, "port": st.integers(0, 9)})
ATTRIBUTE = st.fixed_dictionaries({"name": NAMES, "type": st.just("TEXT"), "text": VALUE})
AWAY = st.fixed_dictionaries({"start": st.fixed_dictionaries({"nanoseconds": st.integers(0, 10**18)})})
OFFERS = st.fixed_dictionaries(
    {"id": VALUE, "agent_id": VALUE, "resources": st.lists(USUAL, max_size=3)},
    optional={
        "hostname": NAMES,
        "url": st.fixed_dictionaries({"address": ADDRESS}, optional={"path": NAMES}),
        "attributes": st.lists(ATTRIBUTE, max_size=2),
        "unavailability": AWAY,
        "allocation_info": st.fixed_dictionaries({"role": st.one_of(NAMES, st.just("ops"))}),
    },
)


@st.composite
def perhaps_damaged(draw: st.DrawFn, events: st.SearchStrategy[Any]) -> Any:
    """An event, sometimes with a part replaced, removed or added."""
    event = draw(events)
    places = list(_places(event))
    damaged: bool = draw(st.booleans())
    if places and damaged:
        inner, key = draw(st.sampled_from(places))
        match draw(st.sampled_from(["replace", "drop", "add"])):
            case "replace":
                inner[key] = draw(JUNK)
            case "drop":
                del inner[key]
            case _ if isinstance(inner, dict):
                inner[draw(st.sampled_from(["role", "revocable", "reservations", "disk", "more"]))] = draw(JUNK)
    return event


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield value, key
        yield from _places(inner)


@given(perhaps_damaged(STATUSES))
def test_fast_path_parses_updates_with_the_same_result(status: Json) -> None:
    event = {"type": "UPDATE", "update": {"status": status}}
    assert read_common(dumps(event), OURS) in (None, _or_none(lambda: read_status(loads(dumps(status)))))


@given(perhaps_damaged(st.lists(OFFERS, max_size=2)))
def test_fast_path_parses_offers_with_the_same_result(offered: list[Json]) -> None:
    event = {"type": "OFFERS", "offers": {"offers": offered}}
    read = read_common(dumps(event), OURS)
    assert read in (None, tuple(_or_none(partial(read_offer, one, OURS)) for one in loads(dumps(offered))))


def _or_none(read: Callable[[], Status | Offer]) -> Status | Offer | None:
    try:
        return read()
    except (KeyError, TypeError, ValueError, AttributeError):
        return None


def test_fast_path_parses_the_common_events_of_mesos() -> None:
    status = {
        "task_id": {"value": "t"},
        "agent_id": {"value": "a"},
        "state": "TASK_FINISHED",
        "timestamp": 1.5,
        "uuid": "dXVpZA==",
        "data": "e30=",
        "container_status": {"container_id": {"value": "c"}},
    }
    assert isinstance(read_common(dumps({"type": "UPDATE", "update": {"status": status}}), OURS), Status)
    role = {"allocation_info": {"role": "ops"}}
    ports = {"name": "ports", "type": "RANGES", "ranges": {"range": [{"begin": 1, "end": 9}]}, **role}
    resources = [scalar("cpus", 4, **role), scalar("mem", 10.5, **role), ports]
    offered = offer(resources=resources, framework_id={"value": "f"}, allocation_info={"role": "ops"})
    read = read_common(dumps({"type": "OFFERS", "offers": {"offers": [offered, offered]}}), OURS)
    assert read == (read_offer(offered, OURS),) * 2


@pytest.mark.parametrize(
    "record",
    [b'{"type":"HEARTBEAT"}', b"[]", b"{", b'{"type":"UPDATE"}', b'{"type":"UPDATE","update":' + b"[" * 100_000],
)
def test_fast_path_leaves_other_events_to_the_general_one(record: bytes) -> None:
    assert read_common(record, OURS) is None


def test_launch_contains_all_fields_that_mesos_needs() -> None:
    spec = json.dumps(
        {"name": "jobcloud", "command": {"value": "run", "uris": [{"value": "http://x/e.zip"}]}, "data": "e30="}
    )
    executor = Executor("ex", "a", "app", (Share("cpus", 100, '{"allocation_info":{"role":"*"}}'),), spec)
    launches = [Launch(f"t{n}", "job", (Share("cpus", 1500),), executor, b"\x00\xff") for n in (1, 2)]
    operation = loads(dumps(launch_operation(launches, "a", "f")))
    assert operation["type"] == "LAUNCH"
    tasks = operation["launch"]["task_infos"]
    assert tasks[0] == {
        "name": "job",
        "task_id": {"value": "t1"},
        "agent_id": {"value": "a"},
        "resources": [{"name": "cpus", "type": "SCALAR", "scalar": {"value": 1.5}}],
        "executor": {
            "type": "CUSTOM",
            "executor_id": {"value": "ex"},
            "framework_id": {"value": "f"},
            "resources": [
                {"name": "cpus", "type": "SCALAR", "scalar": {"value": 0.1}, "allocation_info": {"role": "*"}}
            ],
            **json.loads(spec),
        },
        "data": "AP8=",
    }
    assert tasks[0]["executor"] == tasks[1]["executor"]


@pytest.mark.parametrize("spec", ["", "no json", "[]", "5", '"text"', "{", '{"a":NaN}'])
def test_executor_with_an_invalid_spec_is_refused_by_name(spec: str) -> None:
    launch = Launch("t", "t", (), Executor("ex-7", "a", "app", (), spec), b"")
    with pytest.raises(ConfigError, match="ex-7"):
        launch_operation([launch], "a", "f")


def test_spec_cannot_override_ids() -> None:
    spec = '{"executor_id":{"value":"x"},"framework_id":{"value":"x"},"type":"DEFAULT","resources":[]}'
    launch = Launch("t", "t", (), Executor("ex", "a", "app", (Share("cpus", 1),), spec), b"")
    info = loads(dumps(launch_operation([launch], "a", "f")))["launch"]["task_infos"][0]["executor"]
    assert (info["executor_id"], info["framework_id"], info["type"]) == ({"value": "ex"}, {"value": "f"}, "CUSTOM")
    assert len(info["resources"]) == 1


def test_origin_cannot_override_fields_of_a_share() -> None:
    share = Share("cpus", 1000, '{"name":"mem","scalar":{"value":99}}')
    launch = Launch("t", "t", (share,), Executor("ex", "a", "app", (), "{}"), b"")
    (resource,) = loads(dumps(launch_operation([launch], "a", "f")))["launch"]["task_infos"][0]["resources"]
    assert resource == {"name": "cpus", "type": "SCALAR", "scalar": {"value": 1.0}}


def test_ids_are_in_mesos_form() -> None:
    assert ids(("a", "b")) == [{"value": "a"}, {"value": "b"}]

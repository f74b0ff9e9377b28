"""Outcomes reported by executors, from the update's data to the stored record. Only valid parts are stored."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.core_world import Desk, make_app, make_job

from jobcloud.adapters.mesos.wire import loads
from jobcloud.messages import Kind, Trigger
from jobcloud.model import NO_OUTCOME, Firing, Outcome, ShardState
from jobcloud.scheduler.tasks import parse_outcome
from jobcloud.server.records import decode, encode
from jobcloud.wire import RESULT_BYTES

NESTED: Any = 0
for _ in range(33):
    NESTED = [NESTED]


@pytest.mark.parametrize(
    ("data", "outcome"),
    [
        ('{"schema":1,"cause":null,"result":{"rows":[1,2.5,"ü"]}}', Outcome("", '{"rows":[1,2.5,"ü"]}')),
        ('{"cause":"worker_lost"}', Outcome("worker_lost")),
        ('{"cause":null,"result":false}', Outcome("", "false")),
        ('{"cause":null,"result":null}', NO_OUTCOME),
        ('{"cause":7,"result":1}', Outcome("", "1")),
        ('{"cause":"Drop table","result":1}', Outcome("", "1")),
        ('{"cause":"exception","result":NaN}', Outcome("exception")),
        ('{"cause":"exception","result":"\\ud800"}', Outcome("exception")),
        (json.dumps({"cause": None, "result": "x" * (RESULT_BYTES - 2)}), Outcome("", f'"{"x" * (RESULT_BYTES - 2)}"')),
        (json.dumps({"cause": None, "result": "x" * (RESULT_BYTES - 1)}), NO_OUTCOME),
        (json.dumps({"cause": None, "result": NESTED[0]}), Outcome("", "[" * 32 + "0" + "]" * 32)),
        (json.dumps({"cause": None, "result": NESTED}), NO_OUTCOME),
        ("[" * 100_000, NO_OUTCOME),
        ('{"result":' + "1" * 5_000 + "}", NO_OUTCOME),
        ("[]", NO_OUTCOME),
        ("7", NO_OUTCOME),
        ("{", NO_OUTCOME),
        ("", NO_OUTCOME),
    ],
)
def test_valid_parts_of_an_executors_outcome_are_kept(data: str, outcome: Outcome) -> None:
    assert parse_outcome(data) == outcome


@given(
    st.one_of(
        st.text(),
        st.recursive(
            st.none() | st.booleans() | st.floats() | st.integers() | st.text(st.characters(exclude_categories=())),
            lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        ).map(lambda value: json.dumps({"cause": "exception", "result": value})),
    )
)
def test_any_parsed_outcome_can_be_stored_and_shown(data: str) -> None:
    outcome = parse_outcome(data)
    if outcome.result:
        json.loads(outcome.result.encode())
        assert len(outcome.result.encode()) <= RESULT_BYTES


def test_shard_keeps_the_outcome_of_its_last_attempt() -> None:
    desk = Desk(make_app(), make_job(retry_count=1, retry_delay_ms=100))
    desk.do(Trigger(desk.at, "report"))

    def attempt(state: str, data: str) -> Any:
        desk.offer()
        (task,) = desk.running()
        assert desk.firings()[0].shards[0].outcome == NO_OUTCOME, "a running task has not ended"
        desk.status(task, "TASK_RUNNING")
        desk.status(task, state, data=data)
        return desk.firings()[0].shards[0]

    failed = attempt("TASK_FAILED", '{"cause":"exception"}')
    assert (failed.state, failed.outcome.cause) == (ShardState.WAITING, "exception")
    desk.run_until_idle(until_ms=1_000)
    finished = attempt("TASK_FINISHED", '{"cause":null,"result":{"rows":3}}')
    assert (finished.state, finished.outcome) == (ShardState.FINISHED, Outcome("", '{"rows":3}'))
    (firing,) = desk.firings()
    assert decode(Kind.FIRING, firing.id, encode(Kind.FIRING, firing)) == firing
    before = re.sub(rb',"outcome":{.*?"}', b"", encode(Kind.FIRING, firing))
    assert b"outcome" not in before
    decoded = decode(Kind.FIRING, firing.id, before)
    assert isinstance(decoded, Firing)
    assert decoded.shards[0].outcome == NO_OUTCOME, "a record from before this field existed"


@pytest.mark.parametrize("text", [b"\xff\xfe", b"\\ud800", b"\\udc00 half", b"caf\xe9"])
def test_invalid_text_in_a_message_does_not_break_the_stream(text: bytes) -> None:
    event = loads(b'{"type":"UPDATE","update":{"status":{"message":"%s","state":"TASK_FAILED"}}}' % text)
    status = event["update"]["status"]
    assert status["state"] == "TASK_FAILED"
    status["message"].encode()


@pytest.mark.parametrize("record", [b"", b"{", b"\xff\xfe", b"NaN", b"[" * 100_000, b'{"a":Infinity}'])
def test_invalid_json_is_still_rejected(record: bytes) -> None:
    with pytest.raises(ValueError, match=r"Expecting|Out of range|nested|JSON is malformed|truncated|invalid"):
        loads(record)

"""Names of members: the time limit of a look-up, the addresses that stay known, and the number of threads."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from time import monotonic

import pytest

pytest.importorskip("httptools", reason="the extra [server] is not installed")

from jobcloud.adapters.etcd.client import EtcdClient, EtcdSettings, NoAnswer
from jobcloud.adapters.etcd.names import Found, Names, Target

TARGET = ("etcd.example", 2379)
ADDRESSES: Found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 1))]


class NameService:
    """Answers a look-up if it is `open`. Otherwise the look-up hangs until then."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.open.set()
        self.problem: Exception | None = None
        self.asked: list[Target] = []
        self.answers = 0

    def __call__(self, target: Target) -> Found:
        self.asked.append(target)
        # No failed test hangs.
        self.open.wait(10)
        self.answers += 1
        if self.problem is not None:
            raise self.problem
        return ADDRESSES


@pytest.fixture
def service() -> Iterator[NameService]:
    made = NameService()
    yield made
    made.open.set()


def soon() -> float:
    return monotonic() + 0.02


def later() -> float:
    return monotonic() + 60


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_address_needs_no_look_up(service: NameService, host: str) -> None:
    assert Names(service).find((host, 2379), soon())[0][4][:2] == (host, 2379)
    assert service.asked == []


def test_hung_name_service_does_not_hold_a_look_up(service: NameService) -> None:
    service.open.clear()
    with pytest.raises(TimeoutError, match="name service does not answer"):
        Names(service).find(TARGET, soon())


def test_hung_name_service_does_not_hold_a_call(service: NameService) -> None:
    service.open.clear()
    client = EtcdClient(EtcdSettings("a.example:1,b.example:1", session_timeout_s=0.5), Names(service))
    with pytest.raises(NoAnswer, match="name service does not answer"):
        client.range(b"k")
    client.close()


def test_hung_look_up_has_one_thread_however_often_it_is_wanted(service: NameService) -> None:
    service.open.clear()
    names = Names(service)
    for _ in range(5):
        with pytest.raises(TimeoutError):
            names.find(TARGET, soon())
    assert service.asked == [TARGET]
    service.open.set()
    assert names.find(TARGET, later()) == ADDRESSES


@pytest.mark.parametrize("problem", [socket.gaierror(-3, "try again"), UnicodeError("label too long")])
def test_failed_look_up_is_told_and_the_next_one_asks_again(service: NameService, problem: Exception) -> None:
    names = Names(service)
    service.problem = problem
    with pytest.raises(type(problem), match=str(problem.args[-1])):
        names.find(TARGET, later())
    service.problem = None
    assert names.find(TARGET, later()) == ADDRESSES


@pytest.mark.parametrize("hangs", [True, False])
def test_last_addresses_are_used_without_the_name_service(service: NameService, hangs: bool) -> None:
    names = Names(service)
    assert names.find(TARGET, later()) == ADDRESSES
    service.problem = socket.gaierror(-3, "try again")
    if hangs:
        service.open.clear()
    assert names.find(TARGET, soon()) == ADDRESSES


def test_look_up_that_hangs_already_is_not_waited_for_if_addresses_are_known(service: NameService) -> None:
    names = Names(service)
    names.find(TARGET, later())
    service.open.clear()
    names.find(TARGET, soon())
    assert names.find(TARGET, later()) == ADDRESSES
    assert (len(service.asked), service.answers) == (2, 1)


def test_new_addresses_replace_the_last_ones(service: NameService) -> None:
    answers = [ADDRESSES, [(*ADDRESSES[0][:4], ("127.0.0.2", 1))]]
    names = Names(lambda _: answers.pop(0))
    assert [names.find(TARGET, later())[0][4][0] for _ in range(2)] == ["127.0.0.1", "127.0.0.2"]


def test_missing_threads_are_told_as_a_failed_look_up(service: NameService, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    names = Names(service)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(OSError, match="no thread"):
            names.find(TARGET, later())
    assert names.find(TARGET, later()) == ADDRESSES

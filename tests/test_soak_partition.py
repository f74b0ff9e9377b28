"""The soak's network namespaces are removed, also those of soaks that were killed."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest
from tests.soak.partition import Impossible, Namespace, namespace


@pytest.fixture
def other() -> Iterator[subprocess.Popen[bytes]]:
    """A process that stands for another soak."""
    with subprocess.Popen(["sleep", "60"]) as process:
        yield process
        process.kill()


@pytest.fixture
def made(other: subprocess.Popen[bytes]) -> Iterator[Namespace]:
    """The namespace of the other soak."""
    found = Namespace(other.pid)
    try:
        found.make()
        yield found
    except Impossible as error:
        pytest.skip(f"no network namespaces: {error}")
    finally:
        found.remove()


def names() -> list[str]:
    listed = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout
    return [line.split()[0] for line in listed.splitlines()]


def test_namespace_is_removed_when_its_soak_has_ended(other: subprocess.Popen[bytes], made: Namespace) -> None:
    argv = [*made.wrapper, "sh", "-c", "echo entered && exec sleep 60"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as inside:
        assert inside.stdout is not None
        assert inside.stdout.readline()
        with namespace() as mine:
            assert {mine.name, made.name} <= set(names())
        other.kill()
        other.wait()
        with namespace():
            assert made.name not in names()
        assert inside.wait(60) == -9
    assert mine.name not in names()

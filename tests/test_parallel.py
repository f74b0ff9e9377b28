"""`pytest -n` splits the tests into units by the names of files."""

from __future__ import annotations

from pathlib import Path

from tests import conftest

ROOT = Path(__file__).parents[1]


def test_files_named_in_the_split_exist() -> None:
    named = {*conftest._LONGEST_FIRST, *conftest._TEST_BY_TEST, *conftest._ON_ZOOKEEPER, *conftest._ON_MESOS}
    assert {file for file in named if not (ROOT / file).is_file()} == set()


def test_tests_of_a_file_are_one_unit_unless_listed() -> None:
    assert conftest.unit_of("tests/client/test_cli.py::test_a[1]") == "tests/client/test_cli.py"
    assert conftest.unit_of("tests/test_simulation.py::test_a[1]") == "tests/test_simulation.py::test_a[1]"
    assert conftest.unit_of("tests/adapters/test_store_contract.py::test_a") == "zookeeper"

"""The descriptions of the fields of apps and jobs, and the texts made from them."""

from __future__ import annotations

import dataclasses
import re

import pytest
from tests.core_world import make_app, make_job
from tools.field_tables import PATH, updated

from jobcloud.config import App, Job, Resources
from jobcloud.cron import Dialect
from jobcloud.errors import ConfigError
from jobcloud.fields import REQUIRED, Change, Spec, Unit, changing, fields_of, markdown, names, values_of

RECORDS = (App, Job)
DOCS = PATH.parent


@pytest.mark.parametrize("record", RECORDS)
def test_every_attribute_is_described(record: type) -> None:
    described = {field.owner or field.name for field in fields_of(record)}
    assert described == {attribute.name for attribute in dataclasses.fields(record)} - {"ad_hoc"}  # users do not set it


@pytest.mark.parametrize("record", RECORDS)
def test_json_names_and_python_names_are_unique(record: type) -> None:
    assert len(set(names(record))) == len(names(record))
    assert len({field.name for field in fields_of(record)}) == len(fields_of(record))


@pytest.mark.parametrize("record", RECORDS)
def test_texts_are_sentences_without_their_full_stop(record: type) -> None:
    for field in fields_of(record):
        assert field.spec.text, field.name
        assert not field.spec.text.endswith("."), field.name


@pytest.mark.parametrize("record", RECORDS)
def test_references_lead_to_a_section(record: type) -> None:
    for field in fields_of(record):
        page, _, section = field.spec.see.partition("#")
        text = (DOCS / page if page else PATH).read_text()
        assert not section or section in sections(text), field.spec.see


def sections(text: str) -> set[str]:
    titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles}


def test_tables_of_the_documentation_are_current() -> None:
    text = PATH.read_text()
    assert updated(text) == text, "run make docs"


def test_documentation_without_a_marker_is_refused() -> None:
    with pytest.raises(ValueError, match="App"):
        updated("# Configuring apps and jobs\n")


def test_table_row_shows_units_and_defaults_as_json_writes_them() -> None:
    rows = {row.split("`")[1]: row for row in markdown(Job).splitlines()[2:]}
    assert rows["timeoutSeconds"].startswith(
        "| `timeoutSeconds` † | number | `0` | 0 to 2,592,000 | replace | Time limit"
    )
    assert rows["jobName"].startswith("| `jobName` | text | required |  | fixed | ")
    assert rows["cronDialect"].startswith("| `cronDialect` † | `quartz`, `unix` | `quartz` |  | times | ")
    assert rows["beanName"].startswith("| `beanName` | text or null | `null` |")
    assert rows["listener"].startswith("| `listener` | list of texts | `[]` |")
    nested = "| `distributedListener.class` | text | required in `distributedListener` |"
    assert rows["distributedListener.class"].startswith(nested)


def test_values_follow_the_fields_into_records_within_the_record() -> None:
    app = make_app(resources=Resources(cpus=1_500, mem=64_000))
    values = dict(zip(names(App), values_of(App)(app), strict=True))
    assert (values["appName"], values["cpuCount"], values["packageSha256"]) == (app.name, 1_500, app.package.sha256)


def test_default_of_json_may_differ_from_that_of_python() -> None:
    defaults = {field.spec.name: (field.default, field.json_default) for field in fields_of(Job)}
    assert defaults["beanName"] == ("", None)
    assert defaults["jobProperties.job_exception_handler"] == ("log", "default")
    assert defaults["distributedListener.class"] == ("", REQUIRED)
    assert defaults["cronDialect"] == (Dialect.QUARTZ, Dialect.QUARTZ)


@pytest.mark.parametrize(
    ("number", "problem", "fix"),
    [(99, "0.099 is out of range", "0.1 to 2592000"), (2_592_000_001, "2592000.001 is out of range", "0.1 to 2592000")],
)
def test_number_out_of_range_is_reported_in_the_unit_of_json(number: int, problem: str, fix: str) -> None:
    with pytest.raises(ConfigError) as found:
        Spec("delaySeconds", "a delay", unit=Unit.MILLI, low=100, high=2_592_000_000).check(number)
    assert (found.value.field, found.value.problem, found.value.fix) == ("delaySeconds", problem, fix)


def test_both_ends_of_a_range_are_valid() -> None:
    described = Spec("delaySeconds", "a delay", low=100, high=200)
    described.check(100)
    described.check(200)


def test_every_number_is_valid_without_a_range() -> None:
    Spec("number", "any number").check(-(10**9))


@pytest.mark.parametrize(
    ("change", "some"),
    [
        (Change.FIXED, {"name"}),
        (Change.NONE, {"preferences", "priority", "misfire", "retry_count"}),
        (Change.TIMES, {"cron", "zone"}),
        (Change.PLACE, {"constraints"}),
        (Change.SHARDS, {"shard_count", "shard_parameters", "item_range"}),
        (Change.REPLACE, {"timeout_ms", "cpus", "app"}),
    ],
)
def test_fields_are_selected_by_the_effect_of_their_change(change: Change, some: set[str]) -> None:
    assert some <= changing(Job, change)
    assert changing(Job, change).isdisjoint(changing(Job, *(set(Change) - {change})))


def test_timeouts_of_requests_are_checked_for_http_jobs_only() -> None:
    make_job(http_read_timeout_ms=0)

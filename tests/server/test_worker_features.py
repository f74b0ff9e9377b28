"""The features of the worker of an app, which a job may need."""

from __future__ import annotations

import json
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.core_world import make_app, make_job

from jobcloud.config import App, Isolation, JobKind, JobType
from jobcloud.errors import ConfigError
from jobcloud.server.worker_features import FEATURES, FILE_NAME, PYTHON, Worker, check_features, worker_of

OWN = replace(make_app(), bootstrap_script="bin/worker")
JAVA = json.loads((Path(__file__).parents[2] / "examples" / "java-worker" / FILE_NAME).read_text())

# A job for each feature.
USES: dict[str, dict[str, Any]] = {
    "DATAFLOW": {"type": JobType.DATAFLOW},
    "DAEMON": {"kind": JobKind.DAEMON},
    "process": {"isolation": Isolation.PROCESS},
    "applicationContext": {"bean": "b", "context": "m:c"},
    "springXml": {"bean": "b", "context": "classpath:beans.xml"},
    "listener": {"listeners": ("m:L",)},
    "distributedListener": {"firing_listener": "m:L"},
    "errorHandler": {"error_handler": "m:H"},
    "executorService": {"thread_pool": "com.acme.Pool"},
    "secrets": {"secrets": ("KEY=secret:key",)},
    "files": {"files": '{"a":"b"}'},
}


def package(tmp_path: Path, declaration: str | None) -> Path:
    path = tmp_path / "package.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("hello.py", "")
        if declaration is not None:
            archive.writestr(FILE_NAME, declaration)
    return path


def found(tmp_path: Path, declaration: str | None, app: App = OWN) -> Worker | None:
    return worker_of(app, package(tmp_path, declaration))


def test_declaration_names_the_language_and_the_features(tmp_path: Path) -> None:
    text = '{"language": "Go", "features": ["DATAFLOW", "later", 5], "more": 1}'
    assert found(tmp_path, text) == Worker("go", frozenset({"DATAFLOW", "later"}))


def test_worker_without_a_declaration_may_do_anything(tmp_path: Path) -> None:
    assert found(tmp_path, None) is None
    assert worker_of(OWN, None) is None
    (tmp_path / "package.tar").write_bytes(b"no zip")
    assert worker_of(OWN, tmp_path / "package.tar") is None


def test_app_without_a_worker_of_its_own_has_that_for_python(tmp_path: Path) -> None:
    assert found(tmp_path, "{", make_app()) == PYTHON


@pytest.mark.parametrize(
    "text",
    [
        *("{", "[]", "5", "{}", '{"language": 5, "features": []}', '{"language": "", "features": []}', "[" * 60_000),
        *('{"language": "go"}', '{"language": "go\\n", "features": []}', json.dumps({"language": "go" * 40_000})),
    ],
)
def test_declaration_that_is_not_valid_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match=r"jobcloud-worker\.json"):
        found(tmp_path, text)


@pytest.mark.parametrize("name", FEATURES)
def test_job_that_needs_more_than_the_worker_can_is_refused_by_name(name: str) -> None:
    job = make_job(**USES[name])
    check_features(job, Worker("go", frozenset(FEATURES)))
    with pytest.raises(ConfigError, match="the app's worker, for go, does not support") as refused:
        check_features(job, Worker("go", frozenset(FEATURES) - {name}))
    assert refused.value.field == FEATURES[name].field
    assert FEATURES[name].what in str(refused.value)


@pytest.mark.parametrize("name", USES)
def test_every_other_job_is_not_affected_by_a_feature(name: str) -> None:
    check_features(make_job(), Worker("go", frozenset(FEATURES) - {name}))


def test_daemon_itself_carries_out_scripts_except_for_listeners_of_their_runs() -> None:
    nothing = Worker("go", frozenset())
    script: dict[str, Any] = {"type": JobType.SCRIPT, "script": "bin/x", "job_class": ""}
    check_features(make_job(**script, kind=JobKind.DAEMON, secrets=("KEY=secret:key",)), nothing)
    with pytest.raises(ConfigError, match="listeners of runs"):
        check_features(make_job(**script, firing_listener="m:L"), nothing)


def test_worker_for_java_declares_what_it_can() -> None:
    assert JAVA["language"] == "java"
    assert set(JAVA["features"]) == FEATURES.keys() - {"secrets", "files"}
    assert PYTHON.features == FEATURES.keys() - {"springXml", "executorService"}

"""Notes about jobs for Java, from the files of their packages."""

from __future__ import annotations

import io
import shutil
import subprocess
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from tests.core_world import make_job
from tests.executor_kit import needs_jdk, needs_spring

from jobcloud.client.pack import pack
from jobcloud.server import java_packages
from jobcloud.server.java_packages import java_notes

EXAMPLE = Path(__file__).parents[2] / "examples" / "java-spring"
SPRING = "org/springframework/context/support/ClassPathXmlApplicationContext.class"
# The content of XML files is never read, so no entity is resolved.
HOSTILE = b'<!DOCTYPE x [<!ENTITY e SYSTEM "file:///dev/full"><!ENTITY f "&e;&e;">]><x>&f;</x>'
XML = {"bean": "job", "context": "classpath:META-INF/beans.xml"}


def archive(files: Mapping[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as opened:
        for name, content in files.items():
            opened.writestr(name, content)
    return out.getvalue()


def constants(*texts: str) -> bytes:
    """A part of a class file: texts of its constant pool."""
    return b"\xca\xfe\xba\xbe" + b"".join(b"\x01" + len(text).to_bytes(2, "big") + text.encode() for text in texts)


def notes(tmp_path: Path, files: Mapping[str, bytes], **job: Any) -> list[str]:
    package = tmp_path / "package.zip"
    package.write_bytes(archive(files))
    return java_notes(package, make_job(**{"job_class": "com.acme.Settle", **job}))


@pytest.mark.parametrize(
    ("files", "job", "says"),
    [
        ({"lib/a.jar": archive({"com/acme/Settle.class": b""})}, {}, []),
        ({"com/acme/Settle.class": b""}, {}, []),
        ({"a.jar": archive({"com/acme/Outer$Inner.class": b""})}, {"job_class": "com.acme.Outer$Inner"}, []),
        ({"a.jar": archive({"com/acme/Outer$Inner.class": b""})}, {"job_class": "com.acme.Outer.Inner"}, []),
        ({"a.jar": archive({"com/acme/Outer$Inner.class": b""})}, {"job_class": "com.acme:Outer"}, ["com.acme:Outer"]),
        ({"more/a.jar": archive({"com/acme/Settle.class": b""})}, {}, ["jobClass: the package has no class"]),
        ({"a.jar": b"no archive"}, {}, []),
        ({"a.jar": archive({SPRING: b"", "META-INF/beans.xml": b""})}, XML, []),
        ({"a.jar": archive({SPRING: b"", "META-INF/beans.xml": HOSTILE})}, XML, []),
        ({"a.jar": archive({SPRING: b""})}, XML, ["no file META-INF/beans.xml in its class path"]),
        ({"META-INF/beans.xml": b""}, XML, ["no JAR of Spring"]),
        ({"a.jar": archive({SPRING: b""})}, {"bean": "b", "context": "classpath*:*.xml"}, []),
        ({}, {"bean": "b", "context": "com.acme.Shop"}, ["applicationContext: the package has no class com.acme.Shop"]),
        (
            {"com/acme/Settle.class": b""},
            {
                "listeners": ("com.acme.Audit", "TYPED"),
                "thread_pool": "com.acme.Pool",
                "error_handler": "com.acme.Tell",
            },
            ["listener:", "jobProperties.executor_service_handler:", "jobProperties.job_exception_handler:"],
        ),
    ],
)
def test_missing_class_or_file_is_named(
    tmp_path: Path, files: dict[str, bytes], job: dict[str, Any], says: list[str]
) -> None:
    found = notes(tmp_path, files, **job)
    assert len(found) == len(says), found
    for note, part in zip(found, says, strict=True):
        assert part in note


@pytest.mark.parametrize(
    ("texts", "files", "says"),
    [
        (["Ljavax/annotation/Resource;"], {}, "@Resource"),
        (["x", "Ljavax/annotation/PreDestroy;", "Ljavax/annotation/Resource;"], {}, "@PreDestroy and @Resource"),
        (["Ljavax/annotation/Resource;"], {"lib/api.jar": archive({"javax/annotation/Resource.class": b""})}, ""),
        (["(Ljavax/annotation/Resource;)V"], {}, ""),
        (["Ljavax/annotation/Generated;"], {}, ""),
    ],
)
def test_annotations_without_their_jar_are_named(
    tmp_path: Path, texts: list[str], files: dict[str, bytes], says: str
) -> None:
    found = notes(tmp_path, {"a.jar": archive({"com/acme/Settle.class": constants(*texts)})} | files)
    if says:
        assert f"use {says}, but no JAR has javax.annotation" in found[0]
    else:
        assert not found


@pytest.mark.parametrize(
    ("limit", "value"), [("_MAX_JAR_BYTES", 100), ("_MAX_JARS_BYTES", 300), ("_MAX_FILES", 4), ("_MAX_CLASS_BYTES", 30)]
)
def test_a_package_beyond_a_limit_is_not_searched_further(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, value: int
) -> None:
    large = archive({"a.class": constants("a"), "b.class": constants("Ljavax/annotation/Resource;")})
    assert len(notes(tmp_path, {"a.jar": large, "b.jar": large})) == 2
    monkeypatch.setattr(java_packages, limit, value)
    (tmp_path / "other").mkdir()
    found = notes(tmp_path / "other", {"a.jar": large, "b.jar": large})
    assert len(found) == (0 if limit == "_MAX_JAR_BYTES" else 1), found


def test_a_package_that_is_no_zip_has_no_notes(tmp_path: Path) -> None:
    package = tmp_path / "package.tar.gz"
    package.write_bytes(b"\x1f\x8b")
    assert java_notes(package, make_job(job_class="com.acme.Settle")) == []


@needs_jdk
@needs_spring
def test_example_has_notes_only_without_the_annotations(tmp_path: Path) -> None:
    out = tmp_path / "out"
    subprocess.run(["sh", str(EXAMPLE / "build.sh"), str(out)], check=True)
    for lacking in (False, True):
        if lacking:
            (out / "lib" / "geronimo-annotation-1.3-spec.jar").unlink()
        package = tmp_path / f"package-{lacking}.zip"
        pack(out, package)
        context = "classpath:META-INF/applicationContext.xml"
        found = java_notes(package, make_job(job_class="", bean="interestJob", context=context))
        assert ["use @PostConstruct and @PreDestroy and @Resource" in note for note in found] == [True] * lacking, found
    shutil.rmtree(out)

"""Finds out from the files of a package what is likely to be wrong with a job of the worker for Java.

That worker loads classes from the package itself, from the JARs in it, and from the JARs in its folder `lib`. Classes
may also come from elsewhere, such as JARs on the agents, so that the texts are only notes. The format of class files is
that of "The Java Virtual Machine Specification", chapter 4.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

from jobcloud.config import OWN_ERROR_HANDLERS, Job, is_spring_xml
from jobcloud.server.modules import UNREADABLE

_JAR = re.compile(r"(lib/)?[^/]+\.jar")
# The most that is read of a package: bytes of a JAR, bytes of all JARs, and files in all JARs.
_MAX_JAR_BYTES = 64 << 20
_MAX_JARS_BYTES = 256 << 20
_MAX_FILES = 200_000
# The signature of a file in a zip's directory.
_FILE = b"PK\x01\x02"
# The bytes of class files that are searched for annotations. Further class files are not searched.
_MAX_CLASS_BYTES = 64 << 20
_SPRING = "org/springframework/context/support/ClassPathXmlApplicationContext.class"
_ANNOTATIONS = ("Resource", "PostConstruct", "PreDestroy")
_ANNOTATION_CLASS = "javax/annotation/Resource.class"


class _Found(NamedTuple):
    """`complete`: every JAR was read. `annotations`: those of `javax.annotation` that classes use."""

    files: frozenset[str]
    complete: bool
    annotations: frozenset[str]


def java_notes(package: Path, job: Job) -> list[str]:
    """The likely problems of the job, each with the field. Reads the package once, which may take seconds."""
    found = _look(package)
    notes: list[str] = []
    if found.complete:
        if job.bean:
            if is_spring_xml(job.context):
                notes += _of_spring(found, job.context)
            elif not _has_class(found, job.context):
                notes.append(_missing_class("applicationContext", job.context))
        elif not _has_class(found, job.job_class):
            notes.append(_missing_class("jobClass", job.job_class))
        plugins = [("listener", name) for name in job.listeners]
        plugins.append(("distributedListener.class", job.firing_listener))
        plugins.append(("jobProperties.executor_service_handler", job.thread_pool))
        if job.error_handler not in OWN_ERROR_HANDLERS:
            plugins.append(("jobProperties.job_exception_handler", job.error_handler))
        # A name without a dot is a type, and META-INF/services names its class.
        notes += [_missing_class(field, name) for field, name in plugins if "." in name and not _has_class(found, name)]
    if found.annotations and _ANNOTATION_CLASS not in found.files:
        names = " and ".join(f"@{name}" for name in sorted(found.annotations))
        notes.append(
            f"classes of the package use {names}, but no JAR has javax.annotation: from Java 9 on, their fields stay "
            "null, and their methods are not called (docs/java.md#annotations)"
        )
    return notes


def _of_spring(found: _Found, context: str) -> Iterator[str]:
    path = context.partition(":")[2] or context
    path = path.replace("\\", "/").lstrip("/")
    if not re.search(r"[*?]", path) and path not in found.files:
        yield f"applicationContext: the package has no file {path} in its class path"
    if _SPRING not in found.files:
        yield "applicationContext: the package has no JAR of Spring (spring-context)"


def _has_class(found: _Found, name: str) -> bool:
    """Whether there is a class of this name; a dot may stand for the dollar sign of a nested class."""
    path = name.replace(":", ".").replace(".", "/")
    nested = [path]
    while "/" in path:
        outer, _, inner = path.rpartition("/")
        path = f"{outer}${inner}"
        nested.append(path)
    return any(f"{one}.class" in found.files for one in nested)


def _missing_class(field: str, name: str) -> str:
    return f"{field}: the package has no class {name[:200]} in its class path"


# Packages never change, and their paths have the hash of their content.
@lru_cache(maxsize=8)
def _look(package: Path) -> _Found:
    files: set[str] = set()
    annotations: set[str] = set()
    left, jars_left = _MAX_CLASS_BYTES, _MAX_JARS_BYTES
    complete = True
    try:
        with zipfile.ZipFile(package) as archive:
            files.update(archive.namelist())
            left = _search(archive, annotations, left)
            for entry in archive.infolist():
                if not _JAR.fullmatch(entry.filename):
                    continue
                jars_left -= entry.file_size
                if entry.file_size > _MAX_JAR_BYTES or jars_left < 0:
                    complete = False
                    continue
                try:
                    content = archive.read(entry)
                    if len(files) + content.count(_FILE) > _MAX_FILES:
                        complete = False
                        continue
                    with zipfile.ZipFile(BytesIO(content)) as jar:
                        files.update(jar.namelist())
                        left = _search(jar, annotations, left)
                except UNREADABLE:
                    complete = False
    except UNREADABLE:
        complete = False
    return _Found(frozenset(files), complete, frozenset(annotations))


def _search(archive: zipfile.ZipFile, found: set[str], left: int) -> int:
    """Add the annotations that class files use to `found`. Returns how many of the bytes `left` are left."""
    wanted = {name: _constant(f"Ljavax/annotation/{name};") for name in _ANNOTATIONS}
    for entry in archive.infolist():
        if not entry.filename.endswith(".class") or not wanted.keys() - found:
            continue
        left -= entry.file_size
        if left < 0:
            break
        with suppress(*UNREADABLE), archive.open(entry) as opened:
            content = opened.read(entry.file_size)
            found.update(name for name, constant in wanted.items() if constant in content)
    return left


def _constant(text: str) -> bytes:
    """The text in the constant pool of a class file: tag 1, two bytes of length, UTF-8."""
    encoded = text.encode()
    return b"\x01" + len(encoded).to_bytes(2, "big") + encoded

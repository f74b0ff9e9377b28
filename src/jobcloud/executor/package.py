"""App packages: validate an archive and unpack it into a directory.

The scheduler inspects uploads. The executor verifies the hash and unpacks. Both treat every archive as hostile. Nothing
is written outside the directory. Only files, directories and links between them are made. The number of entries, the
sizes and the compression ratio are checked before each entry is written. This module needs only CPython 3.9 or newer
and its standard library.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import os
import posixpath
import shutil
import stat
import tarfile
import zipfile
import zlib
from dataclasses import dataclass, field
from enum import Enum
from typing import IO, Any, Callable, Dict, FrozenSet, Iterator, List, Optional, Union

from jobcloud.executor.wheels import Wheel, WheelError, choose, distribution, read_wheel, this_interpreter

Source = Union[str, "os.PathLike[str]", bytes]

_CHUNK = 1 << 16
_MAX_NAME_BYTES = 1024
_MAX_LINK_STEPS = 40
_MAX_RECORD_BYTES = 16 << 20
# The folder of a package that holds wheels. Jobs import from these wheels.
WHEELS = "wheels"
# The limit of the compression ratio does not apply up to this unpacked size. Text compresses 10:1, sparse data 50:1.
# Only bombs reach the limit.
_RATIO_FREE_BYTES = 64 << 20
# Errors that the readers raise for truncated or altered archives, and for files that are not archives.
_DAMAGE = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    EOFError,
    OSError,
    ValueError,
    NotImplementedError,
    RuntimeError,
    IndexError,
)


class PackageError(Exception):
    """The package cannot be used. The text names the entry and the fix."""


@dataclass(frozen=True)
class Limits:
    """The maximum values of a package.

    `files`: entries of every kind. `bytes`: unpacked size. `ratio`: unpacked size divided by packed size.
    """

    files: int = 10_000
    bytes: int = 1 << 30
    ratio: int = 200


@dataclass(frozen=True)
class PackageInfo:
    """The content of a package. `format` is "zip" or "tar", `names` are the paths of its files and links."""

    format: str
    sha256: str
    packed_bytes: int
    unpacked_bytes: int
    names: FrozenSet[str] = field(repr=False)


class _Kind(Enum):
    FILE = "file"
    DIRECTORY = "directory"
    SYMLINK = "symbolic link"
    HARDLINK = "hard link"


@dataclass(frozen=True)
class _Entry:
    name: str
    kind: _Kind
    size: int = 0
    executable: bool = False
    target: str = ""
    open: Optional[Callable[[], Any]] = None
    digest: Optional[bytes] = None  # the expected hash, for an entry of a wheel


def inspect(source: Source, limits: Limits = Limits(), *, wheel: bool = False) -> PackageInfo:
    """Read the whole package and the wheels in its folder `wheels`. `wheel`: the package must be a wheel.

    Each wheel in the folder is copied to an unnamed temporary file, one at a time. Nothing else is written. Raises
    PackageError.
    """
    with _open_source(source) as file:
        kind = _format(file)
        survey = _read_entries(file, kind, limits, wheel)
        return PackageInfo(kind, _sha256(file), _size(file), survey.unpacked, frozenset(survey.leaves()))


def _read_entries(file: IO[bytes], kind: str, limits: Limits, wheel: bool) -> _Survey:
    survey = _Survey(limits, _size(file))
    for entry in _entries(file, kind, wheel, new=True):
        survey.add(entry)
        if entry.open is None:
            continue
        if posixpath.dirname(entry.name) == WHEELS and entry.name.endswith(".whl") and not wheel:
            _inspect_library(entry, limits)
        else:
            _copy(entry, survey.ignore)
    survey.check_links()
    return survey


def _inspect_library(entry: _Entry, limits: Limits) -> None:
    import tempfile  # not needed in the executor

    name = posixpath.basename(entry.name)
    if not distribution(name):
        raise PackageError(f"'{entry.name}' is not named as a wheel: name-version-python-abi-platform.whl")
    with tempfile.TemporaryFile() as copy:
        _copy(entry, copy.write)
        try:
            _read_entries(copy, _format(copy), limits, wheel=True)
        except PackageError as error:
            raise PackageError(f"{entry.name}: {error}") from error


def verify(source: Source, sha256: str) -> None:
    """Raises PackageError if the bytes do not hash to `sha256` (lower-case hex)."""
    with _open_source(source) as file:
        found = _sha256(file)
    if found != sha256:
        raise PackageError(
            f"the package's sha256 is {found}, expected {sha256}: altered on its way or at its source; upload it again"
        )


def unpack(
    source: Source, into: Union[str, "os.PathLike[str]"], limits: Limits = Limits(), *, wheel: bool = False
) -> None:
    """Unpack into the new directory `into`, which appears complete or not at all. `wheel`: the package must be a wheel.

    Raises PackageError.
    """
    with _new_directory(into) as partial, _open_source(source) as file:
        survey = _Survey(limits, _size(file))
        _unpack_entries(_entries(file, _format(file), wheel), partial, survey)
        _make_links(partial, survey)


def unpack_wheels(folder: str, into: str, limits: Limits = Limits()) -> bool:
    """Unpack the wheels in `folder` that are for this interpreter into the new directory `into`.

    Returns whether the folder has wheels. The limits hold for all unpacked wheels together. Raises PackageError.
    """
    found = [name for name in os.listdir(folder) if name.endswith(".whl")] if os.path.isdir(folder) else []
    if not found:
        return False
    try:
        paths = [os.path.join(folder, name) for name in choose(found, this_interpreter())]
    except WheelError as error:
        raise PackageError(str(error)) from error
    with _new_directory(into) as partial:
        survey = _Survey(limits, sum(os.path.getsize(path) for path in paths), "in two of the wheels: leave out one")
        digests: Dict[str, Optional[bytes]] = {}
        for path in paths:
            try:
                with _open_source(path) as file:
                    _unpack_entries(
                        _without_copies(_entries(file, _format(file), wheel=True), digests), partial, survey
                    )
            except PackageError as error:
                raise PackageError(f"{os.path.basename(path)}: {error}") from error
        _make_links(partial, survey)
    return True


def _without_copies(entries: Iterator[_Entry], digests: Dict[str, Optional[bytes]]) -> Iterator[_Entry]:
    """Leave out each file that an earlier wheel has with the same name and the same content.

    An example is the `__init__.py` of a package that several wheels share.
    """
    for entry in entries:
        if entry.kind is _Kind.FILE:
            if entry.digest is not None and digests.get(entry.name) == entry.digest:
                continue
            digests.setdefault(entry.name, entry.digest)
        yield entry


@contextlib.contextmanager
def _new_directory(into: Union[str, "os.PathLike[str]"]) -> Iterator[str]:
    """A temporary directory, which is renamed to `into` if the block ends without an error. Raises PackageError."""
    final = os.fspath(into)
    partial = final + ".partial"
    shutil.rmtree(partial, ignore_errors=True)
    try:
        os.mkdir(partial, 0o755)
        yield partial
        os.rename(partial, final)
    except OSError as error:
        raise PackageError(f"cannot unpack into {final}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _unpack_entries(entries: Iterator[_Entry], root: str, survey: _Survey) -> None:
    for entry in entries:
        survey.add(entry)
        path = os.path.join(root, entry.name)
        if entry.kind is _Kind.DIRECTORY:
            os.makedirs(path, 0o755, exist_ok=True)
            continue
        os.makedirs(os.path.dirname(path), 0o755, exist_ok=True)
        if entry.kind is _Kind.FILE:
            _write(entry, path)
        elif entry.kind is _Kind.HARDLINK:
            os.link(os.path.join(root, entry.target), path)


def _make_links(root: str, survey: _Survey) -> None:
    survey.check_links()
    # Links are made last, so that no file is written through a link.
    for name, target in survey.links.items():
        os.symlink(target, os.path.join(root, name))


def _write(entry: _Entry, path: str) -> None:
    descriptor = os.open(
        path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o755 if entry.executable else 0o644
    )
    with os.fdopen(descriptor, "wb") as out:
        _copy(entry, out.write)


def _copy(entry: _Entry, sink: Callable[[bytes], object]) -> None:
    assert entry.open is not None
    try:
        with entry.open() as data:
            while True:
                chunk = data.read(_CHUNK)
                if not chunk:
                    return
                sink(chunk)
    except _DAMAGE as error:
        # Errors with an errno come from the disk, all others from the archive.
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise PackageError(f"'{entry.name}' in the package is damaged ({error}): pack it again") from error


class _Survey:
    """The entries that were read so far. `add` refuses an entry that is unsafe or exceeds a limit."""

    def __init__(self, limits: Limits, packed: int, twice: str = "twice: pack it again from a directory") -> None:
        self._limits, self._packed, self._twice = limits, packed, twice
        self._kinds: Dict[str, _Kind] = {}
        self._count = 0
        self.unpacked = 0
        self.links: Dict[str, str] = {}

    def ignore(self, _: bytes) -> None:
        pass

    def leaves(self) -> List[str]:
        return [name for name, kind in self._kinds.items() if kind is not _Kind.DIRECTORY]

    def add(self, entry: _Entry) -> None:
        self._measure(entry)
        if entry.kind is _Kind.DIRECTORY and self._kinds.get(entry.name) is _Kind.DIRECTORY:
            return
        if entry.name in self._kinds:
            raise PackageError(f"'{entry.name}' is in the package {self._twice}")
        self._add_parents(entry.name)
        self._kinds[entry.name] = entry.kind
        if entry.kind is _Kind.HARDLINK and self._kinds.get(entry.target) is not _Kind.FILE:
            raise PackageError(
                f"'{entry.name}' is a hard link to '{entry.target}', but no such file precedes it: pack a copy"
            )
        if entry.kind is _Kind.SYMLINK:
            self.links[entry.name] = entry.target

    def _measure(self, entry: _Entry) -> None:
        self._count += 1
        self.unpacked += entry.size
        limits = self._limits
        if self._count > limits.files:
            raise PackageError(f"the package has more than {limits.files} entries: leave out unneeded files")
        if self.unpacked > limits.bytes:
            raise PackageError(
                f"at '{entry.name}' the package is over {limits.bytes} bytes unpacked: leave out unneeded files"
            )
        if self.unpacked > max(_RATIO_FREE_BYTES, self._packed * limits.ratio):
            raise PackageError(
                f"at '{entry.name}' the package unpacks to over {limits.ratio} times its size: it looks like a bomb"
            )

    def _add_parents(self, name: str) -> None:
        parent = posixpath.dirname(name)
        while parent:
            known = self._kinds.setdefault(parent, _Kind.DIRECTORY)
            if known is not _Kind.DIRECTORY:
                raise PackageError(
                    f"'{name}' lies below '{parent}', which is a {known.value}: pack it again from a directory"
                )
            parent = posixpath.dirname(parent)

    def check_links(self) -> None:
        for name in self.links:
            self._resolve(name)

    def _resolve(self, name: str) -> None:
        """Follow a link as the kernel would. Raises PackageError if it leads out of the package or in circles."""
        todo = name.split("/")[::-1]
        at: List[str] = []
        steps = 0
        while todo:
            part = todo.pop()
            if part in ("", "."):
                continue
            if part == "..":
                if not at:
                    raise PackageError(f"'{name}' links to '{self.links[name]}', outside the package: pack a copy")
                at.pop()
                continue
            at.append(part)
            target = self.links.get("/".join(at))
            if target is None:
                continue
            steps += 1
            if target.startswith("/") or steps > _MAX_LINK_STEPS:
                raise PackageError(
                    f"'{name}' links to '{self.links[name]}', which is absolute or leads in circles: pack a copy"
                )
            at.pop()
            todo.extend(target.split("/")[::-1])


def _format(file: IO[bytes]) -> str:
    """The format of an archive, according to its first bytes. The name of the file proves nothing."""
    file.seek(0)
    head = file.read(512)
    if head[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
        return "zip"
    if head[:2] == b"\x1f\x8b" or head[:3] == b"BZh" or head[:6] == b"\xfd7zXZ\0" or head[257:262] == b"ustar":
        return "tar"
    raise PackageError(
        "the package is not a zip, tar or compressed tar archive: pack the app's directory with `jobcloud app add DIR`"
    )


def _entries(file: IO[bytes], kind: str, wheel: bool, new: bool = False) -> Iterator[_Entry]:
    """The entries of an archive.

    `new`: refuse rare compression methods, too. Older versions accepted them, so stored packages may use them.
    """
    if wheel and kind != "zip":
        raise PackageError("the package is not a wheel: it is not a zip archive")
    file.seek(0)
    try:
        yield from _zip_entries(file, wheel, new) if kind == "zip" else _tar_entries(file)
    except PackageError:
        raise
    except _DAMAGE as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise PackageError(f"the package is a damaged {kind} archive ({error}): pack it again") from error


def _wheel_in(archive: zipfile.ZipFile, must: bool) -> Optional[Wheel]:
    """The wheel in a zip, or None if the zip is no wheel. If `must`, a zip that is no wheel raises PackageError."""

    def read(name: str) -> bytes:
        if archive.getinfo(name).file_size > _MAX_RECORD_BYTES:
            raise WheelError(f"{name} is over {_MAX_RECORD_BYTES} bytes")
        return archive.read(name)

    try:
        return read_wheel(archive.namelist(), read)
    except WheelError as error:
        if must:
            raise PackageError(f"the package is not a usable wheel: {error}") from error
        return None


def _zip_entries(file: IO[bytes], must_be_wheel: bool, new: bool) -> Iterator[_Entry]:
    with zipfile.ZipFile(file) as archive:
        if new:
            _check_methods(archive)
        wheel = _wheel_in(archive, must_be_wheel)
        for info in archive.infolist():
            name = entry = _safe_name(info.orig_filename)
            opened: Callable[[], Any] = functools.partial(archive.open, info)
            if wheel is not None:
                name, opened = _destination(wheel, entry), functools.partial(wheel.open, entry, opened)
            mode = info.external_attr >> 16
            if info.flag_bits & 0x1:
                raise PackageError(f"'{name}' in the package is encrypted: pack it without a password")
            if info.is_dir():
                if name:
                    yield _Entry(name, _Kind.DIRECTORY)
            elif stat.S_ISLNK(mode):
                yield _Entry(
                    name, _Kind.SYMLINK, target=_link_target(name, archive.open(info).read(_MAX_NAME_BYTES + 1))
                )
            elif stat.S_IFMT(mode) not in (0, stat.S_IFREG):
                raise PackageError(f"'{name}' in the package is a device or the like: leave it out")
            else:
                digest = wheel.digest(entry) if wheel is not None else None
                yield _Entry(name, _Kind.FILE, info.file_size, bool(mode & 0o111), open=opened, digest=digest)


def _check_methods(archive: zipfile.ZipFile) -> None:
    """Refuse rare compression methods before any entry is expanded, because their decoders have no limit of memory."""
    for info in archive.infolist():
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise PackageError(
                f"{info.filename[:200]!r} in the package is compressed with method {info.compress_type}: use deflate"
            )


def _destination(wheel: Wheel, entry: str) -> str:
    try:
        return wheel.place(entry)
    except WheelError as error:
        raise PackageError(str(error)) from error


def _tar_entries(file: IO[bytes]) -> Iterator[_Entry]:
    stream = _BoundedReader(_decompressed(file))
    with tarfile.open(fileobj=stream, mode="r:", encoding="utf-8") as archive:  # type: ignore[call-overload]
        for member in archive:
            name = _safe_name(member.name)
            if member.isdir():
                if name:
                    yield _Entry(name, _Kind.DIRECTORY)
            elif member.issym():
                yield _Entry(name, _Kind.SYMLINK, target=_link_target(name, member.linkname.encode()))
            elif member.islnk():
                yield _Entry(name, _Kind.HARDLINK, target=_safe_name(member.linkname))
            elif member.type in (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE):
                yield _Entry(
                    name,
                    _Kind.FILE,
                    member.size,
                    bool(member.mode & 0o111),
                    open=functools.partial(archive.extractfile, member),
                )
            else:
                raise PackageError(f"'{name}' in the package is a device, a sparse file or the like: leave it out")
        # tarfile takes a truncated or altered header for the end of the archive. The real end is a block of zeros.
        stream.seek(archive.offset)
        if stream.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise PackageError("the package is a damaged tar archive (it ends too early): pack it again")


def _decompressed(file: IO[bytes]) -> Any:
    head = file.read(6)
    file.seek(0)
    if head[:2] == b"\x1f\x8b":
        import gzip

        return gzip.GzipFile(fileobj=file)
    if head[:3] == b"BZh":
        import bz2

        return bz2.BZ2File(file)
    if head == b"\xfd7zXZ\0":
        import lzma

        return lzma.LZMAFile(file)
    return file


class _BoundedReader:
    """A reader for tarfile that refuses large reads.

    Without this limit, tarfile would read an extended header of any size into memory at once.
    """

    def __init__(self, file: Any) -> None:
        self._file = file

    def read(self, size: int) -> bytes:
        if size > 1 << 20:
            raise PackageError("the package has a tar header of more than 1 MiB: pack it again")
        data: bytes = self._file.read(size)
        return data

    def seek(self, position: int) -> int:
        return self._file.seek(position)  # type: ignore[no-any-return]

    def tell(self) -> int:
        return self._file.tell()  # type: ignore[no-any-return]


def _safe_name(name: str) -> str:
    """The normalized path of an entry, or "" for the root. Raises PackageError if the name is not safe."""
    shown = f"{name[:200]!r} in the package"
    if name.startswith("/") or ".." in name.split("/"):
        raise PackageError(f"{shown} would escape its directory: use paths relative to the app's directory")
    if "\\" in name or any(ord(letter) < 32 or ord(letter) == 127 for letter in name):
        raise PackageError(f"{shown} has a backslash or a control character in its name: rename it, or pack it on Unix")
    normal = posixpath.normpath(name) if name else ""
    if len(_encoded(normal, shown)) > _MAX_NAME_BYTES or any(len(part.encode()) > 255 for part in normal.split("/")):
        raise PackageError(f"{shown} has a name that is too long: rename it")
    return "" if normal == "." else normal


def _encoded(name: str, shown: str) -> bytes:
    try:
        return name.encode()
    except UnicodeEncodeError as error:
        raise PackageError(f"{shown} has a name that is not UTF-8: rename it") from error


def _link_target(name: str, target: bytes) -> str:
    if not target or len(target) > _MAX_NAME_BYTES or b"\0" in target:
        raise PackageError(f"'{name}' in the package is a link without a valid target: pack a copy")
    try:
        return target.decode()
    except UnicodeDecodeError as error:
        raise PackageError(f"'{name}' in the package links to a name that is not UTF-8: pack a copy") from error


@contextlib.contextmanager
def _open_source(source: Source) -> Iterator[IO[bytes]]:
    if isinstance(source, bytes):
        yield io.BytesIO(source)
        return
    try:
        file = open(source, "rb")  # noqa: SIM115 - closed below; the try is for errors of open() only
    except OSError as error:
        raise PackageError(f"cannot read the package {os.fspath(source)}: {error.strerror}") from error
    with file:
        yield file


def _size(file: IO[bytes]) -> int:
    return file.seek(0, os.SEEK_END)


def _sha256(file: IO[bytes]) -> str:
    digest = hashlib.sha256()
    file.seek(0)
    for chunk in iter(lambda: file.read(_CHUNK), b""):
        digest.update(chunk)
    return digest.hexdigest()

"""An S3-compatible store, by the library obstore. It is an extra: jobcloud[s3]."""

from __future__ import annotations

import importlib.util
import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, BinaryIO, cast

from jobcloud.archive.stores import Away, Stored

if TYPE_CHECKING:
    from obstore import GetOptions
    from obstore.store import S3Config, S3Store

_TIMEOUT = timedelta(seconds=10)
_RETRIES = 2
_PAGE = 1_000
# The last bytes of an object, which are read first. They hold the table of the zip file, and a short log as a whole.
_TAIL_BYTES = 64 << 10
_BUFFER_BYTES = 256 << 10
_CODE = re.compile(r"<Code>(\w{1,100})</Code>")
_MAX_PROBLEM = 300


@dataclass(frozen=True, slots=True)
class S3Options:
    """`endpoint`: "" for Amazon. Without an `access_key`, the library finds credentials: the environment, or a role."""

    bucket: str
    prefix: str = ""
    endpoint: str = ""
    region: str = ""
    access_key: str = ""
    secret: str = ""

    def __repr__(self) -> str:
        return f"S3Options({self.bucket!r}, {self.prefix!r}, {self.endpoint!r})"


class S3LogStore:
    """Objects below `prefix`/`root` in a bucket, which must exist."""

    def __init__(self, options: S3Options, root: str) -> None:
        self._options = options
        self._prefix = "/".join(filter(None, (options.prefix, root)))
        self._opened: S3Store | None = None

    def __str__(self) -> str:
        return f"s3://{self._options.bucket}/{self._options.prefix}".rstrip("/")

    def prepare(self) -> None:
        if importlib.util.find_spec("obstore") is None:
            raise Away("the library obstore is not installed: pip install 'jobcloud[s3]'")
        from obstore.store import S3Store

        given = self._options
        config: S3Config = {}
        if given.endpoint:
            config["endpoint"] = given.endpoint
        if given.region:
            config["region"] = given.region
        if given.access_key:
            config["access_key_id"], config["secret_access_key"] = given.access_key, given.secret
        with self._away():
            self._opened = S3Store(
                given.bucket,
                prefix=self._prefix,
                config=config,
                client_options={
                    "timeout": _TIMEOUT,
                    "connect_timeout": _TIMEOUT,
                    "allow_http": given.endpoint.startswith("http:"),
                },
                retry_config={"max_retries": _RETRIES, "retry_timeout": _TIMEOUT},
            )

    def put(self, name: str, content: bytes) -> None:
        import obstore

        with self._away():
            # An object of an archive is small enough for one request, which stores it as a whole or not at all.
            obstore.put(self._store, name, content, use_multipart=False)

    def open(self, name: str) -> BinaryIO:
        with self._away():
            return cast(BinaryIO, io.BufferedReader(_Object(self, name), _BUFFER_BYTES))

    def read(self, name: str, start: int | None, length: int) -> tuple[bytes, int]:
        """`length` bytes from `start` on, or the last ones if it is None; and the size of the object."""
        import obstore

        with self._away():
            wanted: GetOptions = {"range": {"suffix": length} if start is None else (start, start + length)}
            found = obstore.get(self._store, name, options=wanted)
            size = found.meta["size"]
            return bytes(found.bytes()), size

    def list(self) -> Iterator[Stored]:
        import obstore

        with self._away():
            for page in obstore.list(self._store, chunk_size=_PAGE):
                for found in page:
                    yield Stored(found["path"], found["size"], int(found["last_modified"].timestamp() * 1_000))

    def delete(self, names: Sequence[str]) -> None:
        import obstore

        with self._away():
            obstore.delete(self._store, list(names))

    @property
    def _store(self) -> S3Store:
        if self._opened is None:
            raise Away("the store is not open")
        return self._opened

    @contextmanager
    def _away(self) -> Iterator[None]:
        from obstore.exceptions import BaseError

        try:
            yield
        except (BaseError, OSError, ValueError) as error:
            text = str(error)
            code = found[1] if (found := _CODE.search(text)) else ""
            if isinstance(error, FileNotFoundError) and code != "NoSuchBucket":
                raise FileNotFoundError("there is no such object") from None
            # The first line has the request and the status. The lines that follow are for developers of the library.
            problem = f"{text.partition(chr(10))[0][:_MAX_PROBLEM]} {code}".strip().rstrip(":")
            raise Away(f"{self}: {problem}") from None


class _Object(io.RawIOBase):
    """The content of an object, read by ranges. Its end is read at once."""

    def __init__(self, store: S3LogStore, name: str) -> None:
        self._store, self._name = store, name
        self._tail, self._size = store.read(name, None, _TAIL_BYTES)
        self._place = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._place = max(0, offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._size}[whence])
        return self._place

    def tell(self) -> int:
        return self._place

    def readinto(self, buffer: object) -> int:
        into = memoryview(buffer)  # type: ignore[arg-type]
        before = self._size - len(self._tail)
        if self._place >= before:
            data = self._tail[self._place - before :][: len(into)]
        else:
            data = self._store.read(self._name, self._place, min(len(into), before - self._place))[0]
        into[: len(data)] = data
        self._place += len(data)
        return len(data)

"""Real SQL servers for tests: Debian's packages postgresql and mariadb-server, in own processes on free ports."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text
from tests.process_kit import ServerProcess, started

from jobcloud.dev.tcp_ports import free_ports

USER = "jobcloud"


def _postgres_bin() -> Path | None:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    return found[-1].parent if found else None


def missing(kind: str) -> str:
    """Why no server of this kind is available for tests, or ""."""
    if kind == "postgresql":
        return "" if _postgres_bin() else "needs PostgreSQL: apt-get install postgresql"
    return "" if shutil.which("mariadbd") else "needs MariaDB: apt-get install mariadb-server"


class SqlServer(ServerProcess):
    kind: str

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.port = free_ports(1)[0]

    def url(self, name: str) -> str:
        return f"{self.kind}://{USER}@127.0.0.1:{self.port}/{name}"

    def new_database(self) -> str:
        """The URL of a new, empty database."""
        name = f"t{uuid.uuid4().hex[:12]}"
        driver = {"postgresql": "postgresql+psycopg", "mariadb": "mariadb+pymysql"}[self.kind]
        engine = create_engine(self.url(self.first).replace(self.kind, driver, 1), isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.execute(text(f"CREATE DATABASE {name}"))
        engine.dispose()
        return self.url(name)

    #: a database that is always there
    first: str

    def crash(self) -> None:
        raise NotImplementedError

    def serves(self) -> bool:
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 2):
            return True
        return False

    def pids(self) -> list[int]:
        """The processes of the server, the first one first."""
        assert self.process is not None
        return [self.process.pid]

    def pause(self) -> None:
        """Let the server hang. The system still accepts connections to it."""
        self._signal_all(signal.SIGSTOP)

    def resume(self) -> None:
        # `runuser` stops with the program that it has started.
        super().resume()
        self._signal_all(signal.SIGCONT)

    def _signal_all(self, number: signal.Signals) -> None:
        for pid in self.pids():
            with suppress(ProcessLookupError):  # the process of a connection may end at any time
                os.kill(pid, number)


def _children(parent: int) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            # The name before the bracket may have any character.
            fields = path.read_text().rpartition(")")[2].split()
            if int(fields[1]) == parent:
                found.append(int(path.parent.name))
    return found


class Postgres(SqlServer):
    kind, first = "postgresql", "postgres"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        programs = _postgres_bin()
        assert programs is not None
        # PostgreSQL refuses to run as root.
        other = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
        if other:
            shutil.chown(folder, "postgres")
        data = folder / "data"
        made = [*other, str(programs / "initdb"), "-D", str(data), "-U", USER, "-A", "trust", "-E", "UTF8", "--no-sync"]
        subprocess.run(made, check=True, capture_output=True, cwd=folder)
        self.argv = [
            *other, str(programs / "postgres"), "-D", str(data), "-p", str(self.port),
            "-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=", "-c", "fsync=off",
            "-c", "full_page_writes=off", "-c", "timezone=America/New_York",
        ]  # fmt: skip

    def serves(self) -> bool:
        return super().serves() and "ready to accept connections" in (self.folder / "log").read_text()

    def stop(self) -> None:
        """Stop without waiting for clients."""
        self._signal("fast")
        self._wait_gone()

    def kill(self) -> None:
        if self.process is not None:
            self._signal("immediate")
            self._wait_gone()

    def crash(self) -> None:
        """Kill all processes at once."""
        assert self.process is not None
        for pid in self.pids():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._wait_gone()

    def pids(self) -> list[int]:
        first = int((self.folder / "data" / "postmaster.pid").read_text().split()[0])
        return [first, *_children(first)]

    def _signal(self, mode: str) -> None:
        programs = _postgres_bin()
        assert programs is not None
        other = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
        stop = [*other, str(programs / "pg_ctl"), "-D", str(self.folder / "data"), "-m", mode, "-w", "stop"]
        subprocess.run(stop, capture_output=True, check=False, cwd=self.folder)

    def _wait_gone(self) -> None:
        assert self.process is not None
        self.process.wait(60)
        self.process = None
        (self.folder / "log").write_text("")


class MariaDb(SqlServer):
    kind, first = "mariadb", "test"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        data = folder / "data"
        subprocess.run(
            ["mariadb-install-db", "--no-defaults", f"--datadir={data}", "--auth-root-authentication-method=normal"],
            check=True, capture_output=True,
        )  # fmt: skip
        users = folder / "users.sql"
        grants = f"CREATE USER IF NOT EXISTS {USER}@'%';\nGRANT ALL ON *.* TO {USER}@'%';\n"
        users.write_text(f"{grants}CREATE DATABASE IF NOT EXISTS {self.first};\n")
        self.argv = [
            "mariadbd", "--no-defaults", f"--datadir={data}", f"--port={self.port}", "--bind-address=127.0.0.1",
            f"--socket={folder / 'socket'}", f"--init-file={users}", "--skip-name-resolve",
            "--innodb-flush-log-at-trx-commit=2", "--innodb-flush-method=nosync", "--innodb-doublewrite=0",
            "--sync-frm=0", "--default-time-zone=+02:00",
            *(["--user=root"] if os.geteuid() == 0 else []),
        ]  # fmt: skip

    def serves(self) -> bool:
        return super().serves() and "ready for connections" in (self.folder / "log").read_text()

    def kill(self) -> None:
        super().kill()
        (self.folder / "log").write_text("")

    crash = kill

    def stop(self) -> None:
        super().stop()
        (self.folder / "log").write_text("")


@contextmanager
def running(kind: str) -> Iterator[SqlServer]:
    """A server of one kind. Killed at the end of the block."""
    if problem := missing(kind):
        pytest.skip(problem)
    # Not below pytest's folder, which the user of PostgreSQL cannot enter.
    folder = Path(tempfile.mkdtemp(prefix=f"jobcloud-{kind}-"))
    folder.chmod(0o755)
    try:
        with started([Postgres(folder / "server") if kind == "postgresql" else MariaDb(folder / "server")]) as (
            server,
        ):
            yield server
    finally:
        shutil.rmtree(folder, ignore_errors=True)

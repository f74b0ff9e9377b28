"""The commands that start a server: `jobcloud scheduler` and `jobcloud dev`."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, NamedTuple

import typer

from jobcloud.client.commands.options import grouped
from jobcloud.errors import ConfigError

_API, _MESOS, _TLS = "API and packages", "Mesos", "TLS to the master"


class ApiOptions(NamedTuple):
    host: Annotated[str | None, typer.Option(help="Address on which the API listens.", rich_help_panel=_API)] = None
    port: Annotated[int | None, typer.Option(help="Port on which the API listens.", rich_help_panel=_API)] = None
    token_file: Annotated[Path | None, typer.Option(help="File with the token of the API.", rich_help_panel=_API)] = (
        None
    )
    artifact_host: Annotated[
        str | None,
        typer.Option(
            help="Address on which the artifact server listens. Agents fetch packages from it.", rich_help_panel=_API
        ),
    ] = None
    artifact_port: Annotated[
        int | None, typer.Option(help="Port on which the artifact server listens.", rich_help_panel=_API)
    ] = None

    def settings(self) -> dict[str, object]:
        return {
            "http.host": self.host,
            "http.port": self.port,
            "http.token_file": self.token_file,
            "artifacts.host": self.artifact_host,
            "artifacts.port": self.artifact_port,
        }


class MesosOptions(NamedTuple):
    mesos: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT|zk://…",
            help="Address of the master, or of the ZooKeeper that the masters use.",
            rich_help_panel=_MESOS,
        ),
    ] = None
    role: Annotated[
        str | None, typer.Option(help="Mesos role, or several separated by commas.", rich_help_panel=_MESOS)
    ] = None
    principal: Annotated[str | None, typer.Option(help="Mesos principal.", rich_help_panel=_MESOS)] = None
    secret_file: Annotated[
        Path | None, typer.Option(help="File with the secret of the principal.", rich_help_panel=_MESOS)
    ] = None

    def settings(self) -> dict[str, object]:
        return {
            "mesos.master": self.mesos,
            "mesos.roles": self.role,
            "mesos.principal": self.principal,
            "mesos.secret_file": self.secret_file,
        }


class TlsOptions(NamedTuple):
    tls_ca: Annotated[
        Path | None, typer.Option(help="File with CA certificates to verify the master.", rich_help_panel=_TLS)
    ] = None
    tls_cert: Annotated[
        Path | None, typer.Option(help="File with the certificate of the scheduler.", rich_help_panel=_TLS)
    ] = None
    tls_key: Annotated[
        Path | None, typer.Option(help="File with the key of this certificate.", rich_help_panel=_TLS)
    ] = None

    def settings(self) -> dict[str, object]:
        return {
            "mesos.tls": True if self.tls_ca or self.tls_cert or self.tls_key else None,
            "mesos.tls_ca_file": self.tls_ca,
            "mesos.tls_cert_file": self.tls_cert,
            "mesos.tls_key_file": self.tls_key,
        }


@grouped
def run_scheduler(
    mesos: MesosOptions,
    api: ApiOptions,
    tls: TlsOptions,
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Directory for state and packages. Default: state in memory, or in ZooKeeper or etcd.",
        ),
    ] = None,
    zookeeper: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT,…", help="Keep the state in ZooKeeper. Then several schedulers can run, and one leads."
        ),
    ] = None,
    etcd: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT,…", help="Keep the state in etcd. Then several schedulers can run, and one leads."
        ),
    ] = None,
    history: Annotated[
        str | None,
        typer.Option(
            metavar="URL|off",
            help="Database of the history: postgresql://USER@HOST/NAME or mariadb://…. Default: SQLite in --data.",
        ),
    ] = None,
    config: Annotated[Path | None, typer.Option(metavar="FILE", help="TOML file with settings.")] = None,
) -> None:
    """Run the scheduler on a Mesos cluster.

    Options override JOBCLOUD_* environment variables. These variables override --config. See docs/settings.md.
    """
    with server_libraries():
        from jobcloud.server import interpreter

        interpreter.prepare()
        from jobcloud.server import settings, wiring

        own = {"data": data, "zookeeper.hosts": zookeeper, "etcd.hosts": etcd, "history.url": history}
        found = settings.load(config, own | mesos.settings() | api.settings() | tls.settings())
        raise typer.Exit(wiring.run_scheduler(found))


def run_dev(
    demo: Annotated[bool, typer.Option("--demo", help="Register the demo app.")] = False,
    agents: Annotated[int, typer.Option(min=1, max=1000, help="Number of agents.")] = 2,
    data: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Directory for the state. Default: a temporary directory.")
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65_535, help="Port on which the API listens.")] = 8899,
    config: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            exists=True,
            dir_okay=False,
            help="TOML file with settings of its scheduler.",
        ),
    ] = None,
) -> None:
    """Run a small cluster on this machine: master, agents and scheduler. For laptops and tests."""
    with server_libraries():
        from jobcloud.dev import supervisor

        raise typer.Exit(supervisor.run_dev(supervisor.DevOptions(demo, agents, data, port, config)))


@contextmanager
def server_libraries() -> Iterator[None]:
    """A block that imports modules of the server. Raises ConfigError if the extra [server] is not installed."""
    try:
        # `dev` itself imports nothing of the extra. The processes that `dev` starts import it.
        importlib.import_module("structlog")
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "jobcloud":
            raise
        problem = f"the server is not installed here ({error.name} is missing)"
        raise ConfigError(problem, field="", fix="pip install ./compat/http-parser '.[server]'") from error

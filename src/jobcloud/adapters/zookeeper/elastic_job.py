"""Read the ZooKeeper namespace of an Elastic-Job-Cloud scheduler. Nothing is changed.

Layout (Elastic-Job-Cloud 2.1.5): config/app/NAME and config/job/NAME hold JSON; state/disable/app/NAME and
state/disable/job/NAME are marks; state/ready, state/failover and state/running hold the pending work of that scheduler.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from kazoo import exceptions as zk

from jobcloud.adapters.zookeeper.session import NoAnswer, ZooKeeperSession, ZooKeeperSettings
from jobcloud.errors import ConfigError, JobcloudError, StoreUnusable, Unavailable

_CONNECT_S = 10.0


@dataclass(frozen=True, slots=True)
class EjNode:
    """One configuration node: its path, its name, and its data. `problem`: why the data could not be read, or ""."""

    path: str
    name: str
    data: bytes = b""
    problem: str = ""


@dataclass(slots=True)
class EjTree:
    """The namespace. `left` counts the nodes of pending work, by folder."""

    apps: list[EjNode] = field(default_factory=list)
    jobs: list[EjNode] = field(default_factory=list)
    disabled_apps: frozenset[str] = frozenset()
    disabled_jobs: frozenset[str] = frozenset()
    left: dict[str, int] = field(default_factory=dict)


def read_tree(hosts: str, namespace: str, auth: str = "") -> EjTree:
    """Read the apps, jobs and marks of Elastic-Job-Cloud. No node is changed or created.

    `auth` is the zk_digest of Elastic-Job-Cloud, "user:password". Raises ConfigError for wrong servers, namespace or
    credentials, Unavailable if no server answers.
    """
    session = ZooKeeperSession(ZooKeeperSettings(hosts, namespace, auth=auth, open_tree=True))
    try:
        return _read(session)
    except NoAnswer as error:
        raise Unavailable(str(error), field="--zookeeper", fix="HOST:PORT of a running server") from error
    except (StoreUnusable, zk.NoAuthError) as error:
        raise _denied(session.root) from error
    except zk.KazooException as error:
        raise JobcloudError(f"{session.root} in ZooKeeper cannot be read: {error!r}") from error
    finally:
        session.close()


def _read(session: ZooKeeperSession) -> EjTree:
    if session.ask(lambda client: client.exists_async(session.root), _CONNECT_S) is None:
        raise ConfigError(
            f"there is no {session.root} in ZooKeeper",
            field="--namespace",
            fix="zk_namespace in the properties of Elastic-Job-Cloud",
        )
    if not {"app", "job"} & {*_children(session, "config")} and not _children(session, "ha"):
        problem = f"{session.root} holds no state of Elastic-Job-Cloud (config/app, config/job, ha)"
        raise ConfigError(problem, field="--namespace", fix="zk_namespace in the properties of Elastic-Job-Cloud")
    left = {folder: len(_children(session, folder)) for folder in ("state/ready", "state/failover", "state/running")}
    return EjTree(
        list(_nodes(session, "config/app")),
        list(_nodes(session, "config/job")),
        frozenset(_children(session, "state/disable/app")),
        frozenset(_children(session, "state/disable/job")),
        {folder: count for folder, count in left.items() if count},
    )


def _children(session: ZooKeeperSession, folder: str) -> list[str]:
    path = session.path(*folder.split("/"))
    try:
        return sorted(session.ask(lambda client: client.get_children_async(path)))
    except zk.NoNodeError:
        return []


def _nodes(session: ZooKeeperSession, folder: str) -> Iterator[EjNode]:
    for name in _children(session, folder):
        path = session.path(*folder.split("/"), name)
        try:
            data, _ = session.ask(lambda client, path=path: client.get_async(path))  # type: ignore[misc]
        except zk.NoNodeError:
            continue
        except StoreUnusable:
            yield EjNode(path, name, problem="access is denied")
        else:
            yield EjNode(path, name, data or b"")


def _denied(root: str) -> ConfigError:
    problem = f"ZooKeeper denies access to {root}"
    return ConfigError(
        problem, field="--auth-file", fix="a file with the zk_digest of Elastic-Job-Cloud, USER:PASSWORD"
    )

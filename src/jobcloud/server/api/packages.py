"""Packages: uploads, and the apps that use a package."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence, Set
from dataclasses import dataclass
from typing import Annotated

from fastapi import Query as Parameter
from fastapi import Request, Response
from pydantic import Field

from jobcloud.config import SHA256, App
from jobcloud.errors import NotFound
from jobcloud.sentences import Told
from jobcloud.server.api.authorization import Access, AccessDep
from jobcloud.server.api.convert import PACKAGE_SCHEME
from jobcloud.server.api.paging import Listing, PageQuery, PageView
from jobcloud.server.api.problems import Problem
from jobcloud.server.api.schema import View
from jobcloud.server.api.services import Services, ServicesDep
from jobcloud.server.api.snapshot import belongs
from jobcloud.server.api.threads import apart
from jobcloud.server.packages import StoredPackage, Upload
from jobcloud.server.routes import Routes

router = Routes(tags=["packages"])

_PACKAGES = Listing("packages", (str,))

_ARCHIVES = ("application/octet-stream", "application/zip", "application/gzip", "application/x-tar")
_UPLOADS_AT_ONCE = asyncio.Semaphore(4)


class PackageView(View):
    sha256: str
    size: int = Field(description="bytes")
    files: int
    app_url: str = Field(description="the value for an app's appURL")


class StoredPackageView(View):
    sha256: str
    size: int = Field(description="bytes")
    app_url: str
    apps: list[str] = Field(description="the keys of the apps that use the package")


class PackageList(PageView):
    items: list[StoredPackageView]
    max_bytes: int = Field(description="the largest package that the server takes")


@router.get("/packages")
def list_packages(services: ServicesDep, access: AccessDep, query: Annotated[PageQuery, Parameter()]) -> PackageList:
    """Stored packages, by hash: those of apps that the sender may view. All packages for a viewer of all teams."""
    uses = _uses(services, access)
    stored = (sha256 for sha256 in services.packages.stored() if uses.shows(sha256))
    found, cursor = _PACKAGES.page(stored, lambda sha256: (sha256,), query)
    items = [_stored_view(services, sha256, uses) for sha256 in found]
    return PackageList(items=items, max_bytes=services.packages.max_bytes, next_cursor=cursor)


@router.get("/packages/{sha256}")
def show_package(services: ServicesDep, access: AccessDep, sha256: str) -> StoredPackageView:
    return _stored_view(services, sha256, _uses(services, access))


@router.post(
    "/packages",
    status_code=201,
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {kind: {"schema": {"type": "string", "format": "binary"}} for kind in _ARCHIVES},
        }
    },
)
async def upload_package(
    services: ServicesDep,
    request: Request,
    response: Response,
    sha256: Annotated[
        str,
        Parameter(description="refuse the upload unless it has this hash", pattern=f"^({SHA256.pattern})?$"),
    ] = "",
) -> PackageView:
    """Upload a zip, tar, tar.gz, tar.bz2 or tar.xz. The archive itself is the body."""
    kind = request.headers.get("content-type", "application/octet-stream").partition(";")[0].strip().lower()
    if kind not in _ARCHIVES:
        raise Problem("unsupported-media-type", f"Send the archive itself as application/octet-stream, not {kind!r}.")
    if _UPLOADS_AT_ONCE.locked():
        raise Problem("too-many", "Four other uploads are in progress.", headers={"Retry-After": "5"})
    async with _UPLOADS_AT_ONCE:
        with services.packages.receive() as upload:
            async for chunk in request.stream():
                upload.write(chunk)
            stored = await apart(lambda: _accept(services, upload, sha256))
    response.headers["Location"] = f"/api/v1/packages/{stored.sha256}"
    url = PACKAGE_SCHEME + stored.sha256
    return PackageView(sha256=stored.sha256, size=stored.size, files=stored.files, app_url=url)


def _accept(services: Services, upload: Upload, sha256: str) -> StoredPackage:
    """Store the upload. Also remove earlier packages that no app uses, because the store grows now."""
    stored = upload.commit(sha256)
    with services.packages.guard:
        services.collect_packages()
    return stored


@dataclass(frozen=True, slots=True)
class _Uses:
    """The apps that the sender may view, and the hashes of the packages of their present and earlier versions.

    `hashes` is None if the sender may view all teams, and so each package.
    """

    apps: Sequence[App]
    hashes: Set[str] | None

    def shows(self, sha256: str) -> bool:
        return self.hashes is None or sha256 in self.hashes


def _uses(services: Services, access: Access) -> _Uses:
    teams, snapshot = access.shown_teams(), services.snapshot()
    apps = [app for app in snapshot.apps.values() if belongs(app.key, teams)]
    if teams is None:
        return _Uses(apps, None)
    versions = (version.app for version in snapshot.app_versions.values() if version.app.team in teams)
    return _Uses(apps, {app.package.sha256 for app in (*apps, *versions)})


def _stored_view(services: Services, sha256: str, uses: _Uses) -> StoredPackageView:
    """Raises NotFound, also for a package that the sender may not see: who knows a hash can run the package."""
    path = services.packages.find(sha256) if uses.shows(sha256) else None
    if path is None:
        problem = Told(f"there is no package {sha256[:100]}", "no_package", sha256=sha256[:100])
        raise NotFound(problem, field="sha256", fix=Told("upload it (POST /api/v1/packages)", "upload_package"))
    users = sorted(app.key for app in uses.apps if app.package.sha256 == sha256)
    return StoredPackageView(sha256=sha256, size=path.stat().st_size, app_url=PACKAGE_SCHEME + sha256, apps=users)

"""Routes are built when their first request comes."""

from __future__ import annotations

import pytest
from fastapi import Depends, FastAPI, Request
from tests.api_kit import client_of

from jobcloud.server.routes import ApiRoute, Routes, routes_of

SEEN: list[str] = []


async def note(request: Request) -> None:
    SEEN.append(request.scope["route"].path)


@pytest.fixture
def app() -> FastAPI:
    SEEN.clear()
    declared = Routes(prefix="/things", tags=["things"])

    @declared.get("/{thing}", tags=["more"])
    async def show(thing: int) -> dict[str, int]:
        return {"thing": thing}

    @declared.put("/{thing}", include_in_schema=False)
    async def put(thing: str) -> str:
        return thing

    made = FastAPI()
    made.router.routes.extend(declared.placed("/api", [Depends(note)]))
    return made


def built(app: FastAPI) -> list[str]:
    return [route.method for route in routes_of(app.routes) if "built" in vars(route)]


def test_route_is_built_by_its_first_request_alone(app: FastAPI) -> None:
    client = client_of(app, url="http://127.0.0.1")
    assert built(app) == []
    assert client.get("/api/things/7").json() == {"thing": 7}
    assert (built(app), SEEN) == (["GET"], ["/api/things/{thing}"])
    assert client.put("/api/things/a").json() == "a"
    assert built(app) == ["GET", "PUT"]


def test_wrong_method_builds_no_route(app: FastAPI) -> None:
    client = client_of(app, url="http://127.0.0.1")
    assert client.delete("/api/things/7").status_code == 405
    assert client.head("/api/things/7").status_code == 405
    assert (built(app), SEEN) == ([], [])


def test_parameters_are_checked(app: FastAPI) -> None:
    assert client_of(app, url="http://127.0.0.1").get("/api/things/none").status_code == 422


def test_built_route_has_the_tags_and_checks_of_all() -> None:
    declared = Routes(tags=["things"])
    declared.get("/a", tags=["more"], dependencies=[Depends(note)])(note)
    declared.get("/b", include_in_schema=False)(note)
    first, second = declared.placed("", [Depends(note)])
    assert isinstance(first, ApiRoute)
    assert (first.built.tags, len(first.built.dependencies)) == (["things", "more"], 2)
    assert [first.built.include_in_schema, second.built.include_in_schema] == [True, False]
    assert not Routes(in_schema=False).placed("", [])

"""The routes of the API. FastAPI builds each one when its first request comes.

To build a route takes milliseconds and memory, because its parameters and its answer become validators. A start needs
none of them, and most schedulers never need most of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar

from fastapi.params import Depends
from fastapi.routing import APIRoute
from starlette.routing import Match, Route
from starlette.types import Receive, Scope, Send

Endpoint = TypeVar("Endpoint", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class _Declared:
    method: str
    path: str
    endpoint: Callable[..., Any]
    described: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Routes:
    """The routes that a module declares, with the arguments of FastAPI's routes. `placed` makes them."""

    prefix: str = ""
    tags: Sequence[str] = ()
    #: OpenAPI describes them
    in_schema: bool = True
    _declared: list[_Declared] = field(default_factory=list)

    def get(self, path: str, **described: Any) -> Callable[[Endpoint], Endpoint]:
        return self._declare("GET", path, described)

    def post(self, path: str, **described: Any) -> Callable[[Endpoint], Endpoint]:
        return self._declare("POST", path, described)

    def put(self, path: str, **described: Any) -> Callable[[Endpoint], Endpoint]:
        return self._declare("PUT", path, described)

    def patch(self, path: str, **described: Any) -> Callable[[Endpoint], Endpoint]:
        return self._declare("PATCH", path, described)

    def delete(self, path: str, **described: Any) -> Callable[[Endpoint], Endpoint]:
        return self._declare("DELETE", path, described)

    def _declare(self, method: str, path: str, described: dict[str, Any]) -> Callable[[Endpoint], Endpoint]:
        def declare(endpoint: Endpoint) -> Endpoint:
            self._declared.append(_Declared(method, self.prefix + path, endpoint, described))
            return endpoint

        return declare

    def placed(self, prefix: str, checks: Sequence[Depends], *, in_schema: bool = True) -> list[ApiRoute]:
        """The routes under a prefix. `checks` run before each of them."""
        shown = in_schema and self.in_schema
        return [ApiRoute(prefix, one, self.tags, checks, in_schema=shown) for one in self._declared]


class ApiRoute(Route):
    """A route of one method. `built` answers its requests."""

    def __init__(
        self, prefix: str, declared: _Declared, tags: Sequence[str], checks: Sequence[Depends], *, in_schema: bool
    ) -> None:
        described = dict(declared.described)
        shown = described.pop("include_in_schema", True) and in_schema
        super().__init__(prefix + declared.path, declared.endpoint, include_in_schema=shown)
        self.method = declared.method
        # Starlette would add HEAD.
        self.methods = {declared.method}
        described["tags"] = [*tags, *described.get("tags", ())]
        described["dependencies"] = [*checks, *described.get("dependencies", ())]
        self._described = described

    @cached_property
    def built(self) -> APIRoute:
        """The route with its validators."""
        return APIRoute(
            self.path,
            self.endpoint,
            methods=[self.method],
            include_in_schema=self.include_in_schema,
            generate_unique_id_function=lambda route: route.name,
            **self._described,
        )

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        match, found = super().matches(scope)
        return match, found if match is Match.NONE else {**found, "route": self}

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] == self.method:
            await self.built.handle(scope, receive, send)
        else:
            # Answers 405.
            await super().handle(scope, receive, send)


def routes_of(routes: Iterable[object]) -> list[ApiRoute]:
    """The routes of the API among all routes of an app."""
    return [route for route in routes if isinstance(route, ApiRoute)]

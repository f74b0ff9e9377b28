"""The answer to a scrape of Prometheus. It is behind the guard, like every read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

from fastapi import Header, Response

from jobcloud.server.api.identities import METRICS_PATH
from jobcloud.server.routes import Routes

Scrape = Callable[[str], tuple[bytes, str]]
"""The media types that a client accepts → the body and the media type of the answer."""


def router(scrape: Scrape) -> Routes:
    """The route of all metrics, outside of `/api/v1`."""
    made = Routes()

    @made.get(METRICS_PATH, include_in_schema=False)
    def show_metrics(accept: Annotated[str, Header(max_length=10_000)] = "") -> Response:
        body, media_type = scrape(accept)
        return Response(body, headers={"Content-Type": media_type, "Vary": "Accept"})

    return made

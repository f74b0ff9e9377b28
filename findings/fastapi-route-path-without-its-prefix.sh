#!/bin/sh
# FastAPI 0.165.0 keeps an included router as one object in `app.routes`. During a request, `request.scope["route"].path`
# is then the path inside the router, without the prefix of `include_router`. In FastAPI 0.136.0 it is the whole path.
# Two routers with equal paths and different prefixes become one name for everything that keys on this attribute: labels
# of metrics, names of spans, tables of permissions. `app.routes` no longer lists the paths either, so a start-up check
# over it finds nothing to check. `scope["root_path"]` is "" in both versions and does not help. The OpenAPI document
# still has the whole paths.
# Seen on 2026-12-01 with the output below. The script fails if the behaviour changes.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
cat >ask.py <<'PYTHON'
import asyncio

import fastapi
import httpx
from fastapi import APIRouter, Depends, FastAPI, Request

seen = []


async def note(request: Request):
    seen.append((request.scope["route"].path, request.scope["root_path"]))


def router():
    made = APIRouter()

    @made.get("/items/{item}")
    async def read(item: str):
        return item

    return made


app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
for prefix in ("/shop", "/warehouse"):
    app.include_router(router(), prefix=prefix, dependencies=[Depends(note)])


async def main():
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        for path in ("/shop/items/1", "/warehouse/items/1"):
            assert (await client.get(path)).status_code == 200


asyncio.run(main())
print(fastapi.__version__, "path, root_path", seen)
print(fastapi.__version__, "routes", [getattr(route, "path", type(route).__name__) for route in app.routes])
print(fastapi.__version__, "openapi", list(app.openapi()["paths"]))
PYTHON
for version in 0.136.0 0.165.0; do
  python3 -m venv "venv$version"
  "venv$version/bin/python" -m pip install -q "fastapi==$version" starlette==1.10.0 httpx==0.28.1 2>/dev/null
  "venv$version/bin/python" ask.py >>seen
done
cat seen
cat >expected <<'END'
0.136.0 path, root_path [('/shop/items/{item}', ''), ('/warehouse/items/{item}', '')]
0.136.0 routes ['/shop/items/{item}', '/warehouse/items/{item}']
0.136.0 openapi ['/shop/items/{item}', '/warehouse/items/{item}']
0.165.0 path, root_path [('/items/{item}', ''), ('/items/{item}', '')]
0.165.0 routes ['_IncludedRouter', '_IncludedRouter']
0.165.0 openapi ['/shop/items/{item}', '/warehouse/items/{item}']
END
diff expected seen

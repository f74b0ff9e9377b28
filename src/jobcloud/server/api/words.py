"""The facts with which a client tells the sentences of the product in another language than English."""

from __future__ import annotations

from typing import TypedDict

import msgspec
from pydantic import Field

from jobcloud.sentences import Parameter, Told, Words
from jobcloud.server.api.schema import View

_CODE = "the code of the sentence; empty if it has none, such as in a record of an older version"
_PARAMETERS = "the values of the sentence, by name, so that clients can tell it in other languages"


class WordsView(View):
    code: str = Field(description=_CODE)
    parameters: dict[str, str | int | float] = Field(description=_PARAMETERS)


class _Words(TypedDict):
    code: str
    parameters: dict[str, Parameter]


def words_of(found: Words | str | msgspec.UnsetType | None) -> _Words:
    """The code and the parameters of a sentence. They are empty if it has none."""
    if isinstance(found, Told):
        found = found.words
    if not isinstance(found, Words):
        return {"code": "", "parameters": {}}
    return {"code": found.code, "parameters": dict(found.parameters)}

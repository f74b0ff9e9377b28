"""Sentences that clients can translate: an English text with a code and parameters."""

from __future__ import annotations

from typing import Self, TypeAlias

import msgspec

Parameter: TypeAlias = str | int | float


class Words(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """The facts of a sentence: its code, and its parameters by name. They suffice to write it in any language.

    Lengths of time are in seconds. Instants are in RFC 3339, in UTC. The parameters of a code never change: a sentence
    with other parameters gets a new code.
    """

    code: str
    parameters: dict[str, Parameter] = {}


class Told(str):
    """A sentence in English, with its `words`. A text that is made from it, for example by `+`, has no `words`."""

    __slots__ = ("words",)
    words: Words

    def __new__(cls, text: str, code: str, **parameters: Parameter) -> Self:
        told = super().__new__(cls, text)
        told.words = Words(code, parameters)
        return told


def text_of(error: ValueError) -> str:
    """The text of an error, which is a Told if the error was raised with one."""
    return error.args[0] if error.args and isinstance(error.args[0], str) else str(error)

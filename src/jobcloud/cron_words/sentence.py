"""Cron expressions in words, in English and Chinese: one exact sentence for each schedule."""

from __future__ import annotations

import enum

from jobcloud.cron import Schedule
from jobcloud.cron_words import chinese, english
from jobcloud.cron_words.shapes import Shape


class Language(enum.Enum):
    """The languages of the words, by their codes of ISO 639-1."""

    EN = "en"
    ZH = "zh"


def describe(schedule: Schedule, language: Language = Language.EN) -> str:
    """When a schedule fires, as one sentence without a full stop. The zone stands at its end, in brackets."""
    shape = Shape.of(schedule.table(), never=schedule.next_after(-1) is None)
    return chinese.sentence(shape) if language is Language.ZH else english.sentence(shape)

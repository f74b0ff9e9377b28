"""Cron expressions in words, in English and Chinese: one exact sentence for each schedule.

The words are made from the sets of a parsed expression (`cron.Schedule.table`), never from its text. So an expression
of each dialect has the words of its firings. Two schedules with different firings never have the same words: each form
of a sentence names all values of its sets. A long even list has an ellipsis between its first three values and its last
value. docs/cron.md shows examples.
"""

from jobcloud.cron_words.sentence import Language, describe
from jobcloud.cron_words.timings import describe_timing

__all__ = ["Language", "describe", "describe_timing"]

"""Problems and fixes that several parts of the product tell, with their codes."""

from __future__ import annotations

from typing import Final

from jobcloud.sentences import Told

LEAVE_OUT: Final = Told("leave it out", "leave_out")
DROP: Final = Told("drop it", "leave_out")
LEAVE_ONE_OUT: Final = Told("leave one of them out", "leave_one_out")
GIVE_ONCE: Final = Told("give it once", "give_once")
REMOVE_ONE: Final = Told("remove one first", "remove_one")
READ_AGAIN: Final = Told("read it again", "read_again")
REPEAT: Final = Told("read it again, then repeat", "read_again")
REPEAT_CHANGE: Final = Told("read it again and repeat your change", "read_again")
TRY_SOON: Final = Told("try again in a few seconds", "try_soon")
TRY_LATER: Final = Told("try again later", "try_later")
ENABLE: Final = Told("enable it first", "enable_it")
REGISTER: Final = Told("register it first", "register_it")
REGISTER_APP: Final = Told("register the app first", "register_app")
OTHER_KEY: Final = Told("choose another key", "other_key")
UPLOAD: Final = Told("upload it first (POST /api/v1/packages)", "upload_it")
CHANNELS_FILE: Final = Told("name a file of channels in the setting alerts.channels_file", "channels_file")


def shown_by(command: str, what: str) -> Told:
    """The command that shows the valid names. `what` completes the text in English, such as "names them"."""
    return Told(f"`{command}` {what}".rstrip(), "shown_by", command=command)


def done_by(command: str, what: str) -> Told:
    """The command that does what the sender wants. `what` completes the text in English, such as "stops the job"."""
    return Told(f"`{command}` {what}", "done_by", command=command)


def between(low: str, high: str, begin: str = "") -> Told:
    """A range. `low` and `high` are numbers as people write them. `begin` is the beginning of the text in English."""
    return Told(f"{begin}{low} to {high}", "between", low=low, high=high)


def at_most(most: int, what: str = "") -> Told:
    """`what` completes the text in English, such as ": choose fewer years"."""
    return Told(f"at most {most}{what}", "at_most", most=most)


def shorten(most: int, whose: str, end: str = "") -> Told:
    """`most` is in bytes. `whose` and `end` are parts of the text in English."""
    return Told(f"shorten {whose} to at most {most:,} bytes{end}", "shorten", most=most)


def such_as(example: str, begin: str = "such as ") -> Told:
    """`begin` is the beginning of the text in English."""
    return Told(f"{begin}{example}", "such_as", example=example)


def choose(values: str, begin: str = "use ") -> Told:
    """The valid values, as a list. `begin` is the beginning of the text in English."""
    return Told(f"{begin}{values}", "use", values=values)


MISSING: Final = Told("is missing", "value_missing")
UNPRINTABLE: Final = Told("contains a character that cannot be printed", "unprintable")


def out_of_range(value: str) -> Told:
    return Told(f"{value} is out of range", "out_of_range", value=value)


def not_valid(value: str, what: str) -> Told:
    """`what` completes the text in English, such as "is not a valid name"."""
    return Told(f"{value!r} {what}", "not_valid", value=value)


def bad_entry(number: int, what: str) -> Told:
    """A wrong entry of a list, by its number: its text may be a secret. `what` completes the text in English."""
    return Told(f"entry {number} {what}", "bad_entry", number=number)


def too_many(number: int, what: str) -> Told:
    """`what` names the entries in English."""
    return Told(f"has {number} {what}", "too_many", number=number)


def too_big(size: int) -> Told:
    """`size` is in bytes of JSON."""
    return Told(f"has {size:,} bytes in JSON", "too_big", size=size)


def twice(name: str) -> Told:
    return Told(f"{name} is given twice", "twice", name=name)


def of_transient(why: str) -> Told:
    """`why` completes the text in English, after "is for TRANSIENT jobs; "."""
    return Told(f"is for TRANSIENT jobs; {why}", "of_transient")


def runs_waiting(runs: int, job: str) -> Told:
    return Told(f"{runs} runs of job {job} have not ended", "runs_waiting", runs=runs, job=job)


def shards_waiting(team: str, waiting: int, most: int, more: int) -> Told:
    """The quota of a team has no room for `more` shards that wait."""
    text = f"quota of team {team}: {waiting} of {most} shards wait already, and {more} would be added"
    return Told(text, "queue_quota", team=team, waiting=waiting, most=most, more=more)


def resident_node(job: str) -> Told:
    return Told(f"job {job} is resident: its runs do not end", "resident_node", job=job)

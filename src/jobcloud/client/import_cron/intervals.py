"""Intervals as fields of a job."""

from __future__ import annotations

from jobcloud.client.import_cron.report import Json

_DAY = 86_400
# A period and the unit of its cron field, both in seconds, and the expression. The interval divides the period.
_FORMS = ((60, 1, "0/{} * * * * ?"), (3_600, 60, "0 0/{} * * * ?"), (_DAY, 3_600, "0 0 0/{} * * ?"))


def fields_of(seconds: int) -> Json:
    """A `cron` for seconds that divide a minute, minutes that divide an hour, or hours that divide a day.

    For any other interval, an entry of `triggers`, because no cron expression has it.
    """
    if seconds == _DAY:
        return {"cron": "0 0 0 * * ?"}
    for whole, unit, form in _FORMS:
        if seconds < whole:
            if seconds % unit or whole % seconds:
                break
            return {"cron": form.format(seconds // unit)}
    return {"triggers": [f"@every {seconds}s"]}

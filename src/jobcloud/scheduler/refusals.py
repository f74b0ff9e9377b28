"""The texts of refusals that several parts of the scheduler and its API give."""

from __future__ import annotations

from jobcloud.sentences import Told


def no_app(key: str) -> Told:
    return Told(f"there is no app {key}", "no_app", app=key)


def no_job(key: str) -> Told:
    return Told(f"there is no job {key}", "no_job", job=key)


def job_off(key: str) -> Told:
    return Told(f"job {key} or its app is disabled", "job_off", job=key)

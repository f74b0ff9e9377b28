"""The registered configurations of each app, so that an operator can go back to an earlier one."""

from __future__ import annotations

from jobcloud.config import App
from jobcloud.messages import Kind
from jobcloud.model import AppVersion, version_key
from jobcloud.scheduler.part import Part
from jobcloud.scheduler.state import State


class AppVersions(Part):
    """Numbers the configurations of each app, and keeps the newest ones (`Policy.app_versions`).

    Equal configurations have one number: an app that goes back to an earlier version gets this version's number. If an
    app was registered by an older jobcloud, which kept no versions, its first version is made when it changes.
    """

    def __init__(self, state: State) -> None:
        super().__init__(state)
        #: app → the numbers of its versions, in order
        self._numbers: dict[str, list[int]] = {}

    def restore(self, at: int) -> None:
        for version in self._state.app_versions.values():
            self._numbers.setdefault(version.app.key, []).append(version.number)
        for numbers in self._numbers.values():
            numbers.sort()

    def add(self, app: App, known: App | None, at: int, by: str) -> None:
        """Add the present configuration of an app, which `by` has sent. `known` is the one before it, if any."""
        for config, instant, subject in ((known, 0, ""), (app, at, by)):
            if config is not None and all(config != version.app for version in self._of(app.key)):
                number = max(self._numbers.get(app.key, ()), default=0) + 1
                self._put(AppVersion(number, instant, config, subject))
        numbers = self._numbers[app.key]
        while len(numbers) > self._state.policy.app_versions:
            # The present version may be an early one.
            self._delete(app.key, next(version.number for version in self._of(app.key) if version.app != app))

    def forget(self, app: str) -> None:
        for version in self._of(app):
            self._delete(app, version.number)
        self._numbers.pop(app, None)

    def _of(self, app: str) -> list[AppVersion]:
        return [self._state.app_versions[version_key(app, number)] for number in self._numbers.get(app, ())]

    def _put(self, version: AppVersion) -> None:
        self._state.put(Kind.APP_VERSION, version_key(version.app.key, version.number), version)
        self._numbers.setdefault(version.app.key, []).append(version.number)

    def _delete(self, app: str, number: int) -> None:
        self._state.delete(Kind.APP_VERSION, version_key(app, number))
        self._numbers[app].remove(number)

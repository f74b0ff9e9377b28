"""Users, teams, roles, service accounts and tokens in the API, as their holders see them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest
from argon2 import PasswordHasher
from argon2.profiles import CHEAPEST
from tests.api_kit import FakeLoop, app_body, client_of, issues, make_api, package_bytes

from jobcloud.access import tokens
from jobcloud.messages import PutAccess
from jobcloud.model import AccessToken, Member, Role, Team, User
from jobcloud.scheduler import Scheduler
from jobcloud.server.api import Access, ApiOptions
from jobcloud.server.identity import passwords
from jobcloud.server.identity.sign_in_limits import PER_ADDRESS

TOKEN = "t0ken-of-the-server"
PASSWORD = "correct horse battery"


@pytest.fixture(autouse=True)
def _cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passwords, "_HASHER", PasswordHasher.from_parameters(CHEAPEST))


class Site:
    """An API with a server's token, and clients of other people."""

    def __init__(self, folder: Path) -> None:
        self.loop = FakeLoop()
        self.folder = folder
        self.use(TOKEN)
        self.loop.subscribe()

    def use(self, token: str) -> None:
        """Start the API with another token in its settings."""
        options = ApiOptions(access=Access(token=token))
        self.app = make_api(self.folder, self.loop, options=options, clock=lambda: self.loop.now)
        self.server = client_of(self.app, token)

    def client(self, token: str) -> httpx.Client:
        return client_of(self.app, token)

    def person(self, name: str, team: str = "", role: str = "") -> httpx.Client:
        """A user with a role in a team, by a token."""
        scheduler: Scheduler = self.loop.scheduler
        if name not in scheduler.directory.users:
            self.loop.feed(PutAccess(self.loop.now, User(name, self.loop.now)))
        if role:
            old = scheduler.directory.teams.get(team, Team(team))
            new = Team(team, (*old.members, Member(f"user:{name}", role)), old.quota, old.weight)
            self.loop.feed(PutAccess(self.loop.now, new))
        return self.client(self.secret(f"user:{name}"))

    def secret(self, subject: str) -> str:
        """A token that was made by somebody else, such as in a browser."""
        number = len(self.loop.scheduler.directory.tokens)
        made = tokens.make(tokens.TOKEN_PREFIX, bytes([number]) * 38)
        self.loop.feed(PutAccess(self.loop.now, AccessToken(made.id, "browser", made.hash, subject, self.loop.now)))
        return made.text


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def ok(answer: httpx.Response, status: int = 200) -> Any:
    assert answer.status_code == status, answer.text
    return answer.json() if answer.content else None


def forbidden(answer: httpx.Response) -> None:
    assert answer.status_code == 403, answer.text
    assert answer.json()["type"] == "urn:jobcloud:problem:forbidden"


# ------------------------------------------------------------------------------------------------- users


def test_user_is_added_shown_disabled_and_removed(site: Site) -> None:
    api = site.server
    made = ok(api.post("users", json={"name": "ann", "password": PASSWORD}), 201)
    assert made == {
        "name": "ann", "createdAt": "2023-11-14T22:13:20.000Z", "disabled": False, "hasPassword": True, "roles": [],
    }  # fmt: skip
    stored = site.loop.scheduler.directory.users["ann"].password
    assert passwords.verify(stored, PASSWORD)
    ok(api.post("teams/*/members", json={"subject": "user:ann", "role": "admin"}))
    assert ok(api.get("users/ann"))["roles"] == [{"team": "*", "role": "admin"}]
    assert "name" in issues(api.post("users", json={"name": "ann"}), "conflict")
    assert ok(api.patch("users/ann", json={"disabled": True}))["disabled"] is True
    assert [user["name"] for user in ok(api.get("users"))["items"]] == ["ann"]
    assert stored not in api.get("users").text + api.get("users/ann").text
    ok(api.delete("users/ann"), 204)
    assert issues(api.get("users/ann"), "not-found")
    assert issues(api.delete("users/ann"), "not-found")
    assert ok(api.get("teams/*"))["members"] == []


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "name"),
        ({"name": "a b"}, "name"),
        ({"name": "ann", "password": "short"}, "password"),
        ({"name": "ann", "password": 5}, "password"),
        ({"name": "ann", "password": "annannannann"}, "password"),
        ({"name": "ann", "passwort": PASSWORD}, "passwort"),
    ],
)
def test_wrong_user_is_refused(site: Site, body: dict[str, Any], field: str) -> None:
    assert field in issues(site.server.post("users", json=body))
    assert not site.loop.scheduler.directory.users


def test_users_are_for_admins_of_the_installation(site: Site) -> None:
    bob = site.person("bob", "web", "admin")
    forbidden(bob.get("users"))
    forbidden(bob.post("users", json={"name": "eve"}))
    forbidden(bob.patch("users/bob", json={"disabled": True}))
    forbidden(bob.delete("users/bob"))
    forbidden(bob.put("users/ann/password", json={"password": PASSWORD}))


def test_own_password_needs_the_present_one(site: Site) -> None:
    bob = site.person("bob", "web", "viewer")
    site.server.put("users/bob/password", json={"password": PASSWORD})
    new = {"password": "another good password"}
    assert "currentPassword" in issues(bob.put("users/bob/password", json=new))
    assert "currentPassword" in issues(bob.put("users/bob/password", json=new | {"currentPassword": "wrong"}))
    ok(bob.put("users/bob/password", json=new | {"currentPassword": PASSWORD}), 204)
    assert passwords.verify(site.loop.scheduler.directory.users["bob"].password, new["password"])
    scoped = ok(bob.post("tokens", json={"name": "ci", "scope": [{"team": "web", "role": "viewer"}]}), 201)
    old = {"currentPassword": new["password"], "password": PASSWORD}
    forbidden(site.client(scoped["token"]).put("users/bob/password", json=old))
    assert issues(site.server.put("users/nobody/password", json=new), "not-found")


def test_tries_of_the_own_password_have_the_limits_of_a_sign_in(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    bob = site.person("bob", "web", "viewer")
    checked: list[str] = []
    monkeypatch.setattr(passwords, "verify", lambda _, text: checked.append(text))
    body = {"password": PASSWORD, "currentPassword": "wrong"}
    answers = [bob.put("users/bob/password", json=body).status_code for _ in range(PER_ADDRESS.tries + 1)]
    assert (answers, len(checked)) == ([422] * PER_ADDRESS.tries + [429], PER_ADDRESS.tries)
    ok(site.server.put("users/bob/password", json={"password": PASSWORD}), 204)


# ------------------------------------------------------------------------------------------------- teams and roles


def test_team_is_created_changed_and_removed(site: Site) -> None:
    api = site.server
    quota = {"cpuCount": 4.5, "memoryMB": 1024, "gpuCount": None, "jobs": 10, "shards": 0, "queue": None}
    made = ok(api.put("teams/web", json={"weight": 3, "quota": quota}), 201)
    assert made == {"revision": made["revision"], "name": "web", "weight": 3, "quota": quota, "members": []}
    ok(api.post("teams/web/members", json={"subject": "group:ops", "role": "operator"}))
    changed = ok(api.put("teams/web", json={"weight": 2}))
    assert changed["quota"] == dict.fromkeys(quota)
    assert changed["members"] == [{"subject": "group:ops", "role": "operator"}]
    assert [team["name"] for team in ok(api.get("teams"))["items"]] == ["web"]
    sha256 = ok(api.post("packages", content=package_bytes()), 201)["sha256"]
    ok(api.post("apps", json=app_body(sha256, team="web")), 201)
    assert "web:demo" in issues(api.delete("teams/web"), "conflict")["name"]
    ok(api.delete("apps/web:demo"), 204)
    ok(api.delete("teams/web"), 204)
    assert issues(api.get("teams/web"), "not-found")
    assert issues(api.delete("teams/*"), "not-found")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"weight": 0}, "weight"),
        ({"weight": 1001}, "weight"),
        ({"quota": {"cpuCount": -1}}, "quota.cpuCount"),
        ({"quota": {"cpuCount": 1e10}}, "quota.cpuCount"),
        ({"quota": {"cpuCount": 0.0001}}, "quota.cpuCount"),
        ({"quota": {"jobs": 1.5}}, "quota.jobs"),
        ({"quota": {"cpus": 1}}, "quota.cpus"),
        ({"members": []}, "members"),
    ],
)
def test_wrong_team_is_refused(site: Site, body: dict[str, Any], field: str) -> None:
    assert field in issues(site.server.put("teams/web", json=body))
    assert not site.loop.scheduler.directory.teams


def test_condition_protects_a_team_from_a_change_that_was_not_seen(site: Site) -> None:
    api = site.server
    answer = api.put("teams/web", json={})
    seen = {"If-Match": answer.headers["etag"]}
    assert api.get("teams/web", headers={"If-None-Match": answer.headers["etag"]}).status_code == 304
    ok(api.post("teams/web/members", json={"subject": "user:ann", "role": "viewer"}))
    for refused in (
        api.put("teams/web", json={"weight": 2}, headers=seen),
        api.post("teams/web/members", json={"subject": "user:bob", "role": "viewer"}, headers=seen),
        api.delete("teams/web/members", params={"subject": "user:ann"}, headers=seen),
    ):
        assert issues(refused, "precondition-failed")
    ok(api.put("teams/web", json={"weight": 2}))


def test_members_are_added_and_removed_one_by_one(site: Site) -> None:
    api = site.server
    member = {"subject": "user:ann", "role": "viewer"}
    assert issues(api.post("teams/web/members", json=member), "not-found")
    ok(api.put("teams/web", json={}), 201)
    for _ in range(2):
        assert ok(api.post("teams/web/members", json=member))["members"] == [member]
    ok(api.post("teams/web/members", json=member | {"role": "operator"}))
    assert issues(api.delete("teams/web/members", params=member | {"role": "admin"}), "not-found")
    left = ok(api.delete("teams/web/members", params=member))["members"]
    assert left == [{"subject": "user:ann", "role": "operator"}]
    assert ok(api.delete("teams/web/members", params={"subject": "user:ann"}))["members"] == []
    assert "role" in issues(api.post("teams/web/members", json=member | {"role": "absent"}), "not-found")
    assert "subject" in issues(api.post("teams/web/members", json=member | {"subject": "ann"}))


def test_team_admin_manages_the_own_team_only(site: Site) -> None:
    bob, eve = site.person("bob", "web", "admin"), site.person("eve", "web", "viewer")
    site.server.put("teams/data", json={})
    new = {"subject": "user:joe", "role": "author"}
    assert [team["name"] for team in ok(bob.get("teams"))["items"]] == ["web"]
    ok(bob.post("teams/web/members", json=new))
    for by, team in ((bob, "data"), (bob, "*"), (eve, "web")):
        forbidden(by.post(f"teams/{team}/members", json=new))
        forbidden(by.delete(f"teams/{team}/members", params={"subject": "user:bob"}))
        forbidden(by.put(f"teams/{team}", json={"weight": 9}))
        forbidden(by.delete(f"teams/{team}"))
    forbidden(bob.get("teams/data"))
    ok(eve.get("teams/web"))


def test_roles_are_listed_changed_and_removed(site: Site) -> None:
    api = site.server
    listed = ok(api.get("roles"))["items"]
    assert [role["name"] for role in listed] == [
        "viewer", "operator", "author", "admin", "auditor", "metrics", "teardown",
    ]  # fmt: skip
    assert all(role["builtIn"] for role in listed)
    made = ok(api.put("roles/caller", json={"verbs": ["trigger", "view"]}), 201)
    assert made == {
        "name": "caller", "builtIn": False, "verbs": ["view", "trigger"], "revision": made["revision"],
    }  # fmt: skip
    assert ok(api.get("roles/caller")) == ok(api.get("roles"))["items"][-1] == made
    assert ok(api.get("roles/viewer"))["builtIn"]
    assert issues(api.get("roles/none"), "not-found")
    ok(api.put("roles/caller", json={"verbs": ["view"]}))
    pages = [ok(api.get("roles", params={"limit": 7}))]
    pages.append(ok(api.get("roles", params={"cursor": pages[0]["nextCursor"]})))
    assert [role["name"] for role in pages[1]["items"]] == ["caller"]
    assert "name" in issues(api.put("roles/viewer", json={"verbs": ["teardown"]}), "conflict")
    assert "name" in issues(api.put("roles/No", json={"verbs": ["view"]}))
    for verbs in (["fly"], [], ["view", "view"]):
        assert any(field.startswith("verbs") for field in issues(api.put("roles/caller", json={"verbs": verbs})))
    ok(api.delete("roles/caller"), 204)
    assert issues(api.delete("roles/caller"), "not-found")
    bob = site.person("bob", "web", "admin")
    forbidden(bob.put("roles/caller", json={"verbs": ["view"]}))
    forbidden(bob.delete("roles/caller"))
    ok(bob.get("roles"))


def test_change_of_a_role_may_depend_on_its_revision(site: Site) -> None:
    api = site.server
    first = api.put("roles/caller", json={"verbs": ["view"]})
    tag = first.headers["etag"]
    assert api.get("roles/caller", headers={"If-None-Match": tag}).status_code == 304
    second = api.put("roles/caller", json={"verbs": ["pause", "view"]}, headers={"If-Match": tag})
    assert (second.status_code, second.json()["revision"] != first.json()["revision"]) == (200, True)
    for stale in (tag, f'"{first.json()["revision"]}"', f"W/{second.headers['etag']}"):
        answer = api.put("roles/caller", json={"verbs": ["trigger"]}, headers={"If-Match": stale})
        assert answer.status_code == 412, stale
    assert api.put("roles/other", json={"verbs": ["view"]}, headers={"If-Match": tag}).status_code == 412
    assert ok(api.get("roles/caller"))["verbs"] == ["view", "pause"]
    revision = f'"{second.json()["revision"]}"'
    again = api.put("roles/caller", json={"verbs": ["view"]}, headers={"If-Match": revision})
    assert (again.status_code, again.json()["revision"]) == (200, first.json()["revision"])


def test_role_that_changes_during_the_request_is_not_overwritten(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """The scheduler compares the role again when it handles the command."""
    api = site.server
    tag = api.put("roles/caller", json={"verbs": ["view"]}).headers["etag"]
    command, others = site.loop.command, [Role("caller", ("pause",))]

    def late(make: Any, timeout: float = 10) -> None:
        if others:
            site.loop.feed(PutAccess(site.loop.now, others.pop()))
        command(make, timeout)

    monkeypatch.setattr(site.loop, "command", late)
    answer = api.put("roles/caller", json={"verbs": ["trigger"]}, headers={"If-Match": tag})
    assert answer.status_code == 412, answer.text
    assert ok(api.get("roles/caller"))["verbs"] == ["pause"]
    others.append(Role("caller", ("trigger",)))
    assert ok(api.put("roles/caller", json={"verbs": ["view"]}))["verbs"] == ["view"], "the last one wins without it"


# ------------------------------------------------------------------------------------------------- tokens


def test_secret_of_a_token_is_shown_once(site: Site) -> None:
    bob = site.person("bob", "web", "operator")
    answer = bob.post("tokens", json={"name": "ci", "expiresSeconds": 3600})
    made = ok(answer, 201)
    assert answer.headers["cache-control"] == "no-store"
    assert made["expiresAt"] == "2023-11-14T23:13:20.000Z"
    assert made["subject"] == made["createdBy"] == "user:bob"
    ci = site.client(made["token"])
    assert ok(ci.get("whoami"))["via"] == f"token {made['id']}"
    listed = bob.get("tokens")
    assert made["token"] not in listed.text
    assert site.loop.scheduler.directory.tokens[made["id"]].hash not in listed.text
    assert [token["name"] for token in listed.json()["items"]] == ["browser", "ci"]


def test_token_ends_when_it_is_revoked(site: Site) -> None:
    bob, eve = site.person("bob", "web", "operator"), site.person("eve", "web", "viewer")
    made = ok(bob.post("tokens", json={"name": "ci"}), 201)
    assert [token["subject"] for token in ok(eve.get("tokens"))["items"]] == ["user:eve"]
    assert issues(eve.delete(f"tokens/{made['id']}"), "not-found")
    ok(bob.delete(f"tokens/{made['id']}"), 204)
    answer = site.client(made["token"]).get("whoami")
    assert (answer.status_code, answer.json()["detail"]) == (401, "The token was revoked.")
    states = {token["id"]: token["state"] for token in ok(bob.get("tokens"))["items"]}
    assert states[made["id"]] == "revoked"


def test_token_has_no_more_rights_than_its_maker(site: Site) -> None:
    bob = site.person("bob", "web", "operator")
    for scope in ([{"team": "web", "role": "author"}], [{"team": "*", "role": "viewer"}]):
        forbidden(bob.post("tokens", json={"name": "ci", "scope": scope}))
    forbidden(bob.post("tokens", json={"name": "ci", "subject": "user:ann"}))
    forbidden(site.server.post("tokens", json={"name": "ci"}))
    made = ok(bob.post("tokens", json={"name": "ci", "scope": [{"team": "web", "role": "viewer"}]}), 201)
    child = ok(site.client(made["token"]).post("tokens", json={"name": "child"}), 201)
    assert child["scope"] == made["scope"] == [{"team": "web", "role": "viewer"}]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "name"),
        ({"name": ""}, "name"),
        ({"name": "a\nb"}, "name"),
        ({"name": "x" * 65}, "name"),
        ({"name": "ci", "expiresSeconds": 0}, "expiresSeconds"),
        ({"name": "ci", "expiresSeconds": 367 * 86_400}, "expiresSeconds"),
        ({"name": "ci", "scope": [{"team": "No", "role": "viewer"}]}, "scope.0.team"),
        ({"name": "ci", "scope": [{"team": "web"}]}, "scope.0.role"),
    ],
)
def test_wrong_token_is_refused(site: Site, body: dict[str, Any], field: str) -> None:
    bob = site.person("bob", "web", "operator")
    assert field in issues(bob.post("tokens", json=body))
    assert len(site.loop.scheduler.directory.tokens) == 1


def test_service_account_of_a_team(site: Site) -> None:
    bob, eve = site.person("bob", "web", "admin"), site.person("eve", "web", "author")
    body = {"name": "ci", "subject": "service:web/ci"}
    assert issues(bob.post("tokens", json=body), "conflict")
    ok(bob.post("teams/web/members", json={"subject": "service:web/ci", "role": "operator"}))
    made = ok(bob.post("tokens", json=body), 201)
    forbidden(eve.post("tokens", json=body))
    assert "service:web/ci" not in eve.get("services").text
    (service,) = ok(bob.get("services", params={"team": "web"}))["items"]
    assert service == {
        "subject": "service:web/ci", "team": "web", "name": "ci", "roles": [{"team": "web", "role": "operator"}],
        "tokens": 1,
    }  # fmt: skip
    assert made["id"] in [token["id"] for token in ok(bob.get("tokens"))["items"]]
    forbidden(eve.delete("services/web/ci"))
    ok(bob.delete("services/web/ci"), 204)
    assert site.client(made["token"]).get("whoami").status_code == 401
    assert issues(bob.delete("services/web/ci"), "not-found")
    assert "subject" in issues(site.server.delete("services/web/No"))


def test_whoami_tells_roles_and_verbs_by_team(site: Site) -> None:
    site.person("bob", "data", "viewer")
    bob = site.person("bob", "web", "operator")
    made = ok(bob.post("tokens", json={"name": "ci", "scope": [{"team": "web", "role": "viewer"}]}), 201)
    assert ok(site.client(made["token"]).get("whoami")) == {
        "subject": "user:bob",
        "via": f"token {made['id']}",
        "groups": [],
        "scope": [{"team": "web", "role": "viewer"}],
        "teams": [
            {"team": "data", "roles": ["viewer"], "verbs": []},
            {"team": "web", "roles": ["operator"], "verbs": ["view", "read-logs"]},
        ],
    }
    found = ok(site.server.get("whoami"))
    assert (found["subject"], found["teams"][0]["team"], found["scope"]) == ("token:server", "*", None)
    assert "teardown" in found["teams"][0]["verbs"]


# ------------------------------------------------------------------------------------------------- the server's token


def test_revoked_server_token_is_replaced_by_a_new_one_only(site: Site) -> None:
    assert issues(site.server.delete("tokens/server"), "conflict")
    ann = site.person("ann", "*", "admin")
    assert [token["id"] for token in ok(ann.get("tokens", params={"subject": "token:server"}))["items"]] == ["server"]
    forbidden(site.person("bob", "web", "admin").delete("tokens/server"))
    ok(ann.delete("tokens/server"), 204)
    for _ in range(2):
        answer = site.server.get("whoami")
        assert (answer.status_code, "was revoked" in answer.json()["detail"]) == (401, True)
        site.use(TOKEN)  # a restart changes nothing
    (revoked,) = ok(ann.get("tokens", params={"subject": "token:server"}))["items"]
    assert revoked["state"] == "revoked"
    assert issues(ann.delete("users/ann"), "conflict")
    site.use("a-new-token-in-the-file")
    assert ok(site.server.get("whoami"))["subject"] == "token:server"
    ok(site.server.delete("users/ann"), 204)
    site.use(TOKEN)
    assert site.server.get("whoami").status_code == 401


def test_lists_of_a_new_installation_are_empty(site: Site) -> None:
    for path in ("users", "teams", "services", "sessions", "silences", "alerts"):
        assert ok(site.server.get(path))["items"] == []


def test_lists_come_in_pages(site: Site) -> None:
    for number in range(5):
        site.person(f"user-{number}", "web", "viewer")
        site.server.put(f"teams/team-{number}", json={})
    for path, count in (("users", 5), ("tokens", 6), ("teams", 6), ("roles", 7)):
        found, cursor = [], ""
        while True:
            page = ok(site.server.get(path, params={"limit": 2, "cursor": cursor}))
            found += page["items"]
            cursor = page["nextCursor"]
            if not cursor:
                break
        assert len(found) == count, path
        assert len({str(item) for item in found}) == count


# ------------------------------------------------------------------------------------------------- senders


def test_app_versions_name_the_sender_of_each_way_to_register_an_app(site: Site) -> None:
    senders = {name: site.person(name, "default", "author") for name in ("ann", "bob", "cid", "dan", "eva")}
    uploaded = site.server.post("packages", content=package_bytes()).json()["sha256"]

    def config(number: int) -> dict[str, Any]:
        return app_body(uploaded, description=str(number))

    ok(senders["ann"].post("apps", json=config(1)), 201)
    ok(senders["bob"].put("apps/demo", json=config(2)))
    ok(senders["cid"].patch("apps/demo", json={"description": "3"}))
    ok(senders["dan"].post("apply", json={"apps": [config(4)]}))
    ok(senders["eva"].put("http://127.0.0.1/api/app", json={"appName": "demo", "cpuCount": 0.25}), 204)
    ok(site.server.post("apps/demo/rollback", params={"version": 1}))
    found = ok(senders["ann"].get("apps/demo/versions"))["items"]
    assert [(one["number"], one["registeredBy"]) for one in found] == [
        (5, "user:eva"), (4, "user:dan"), (3, "user:cid"), (2, "user:bob"), (1, "user:ann"),
    ]  # fmt: skip

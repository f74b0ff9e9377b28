"""`jobcloud login` and `logout`: sign in at the identity provider of a server."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from jobcloud.client import render
from jobcloud.client.commands.options import GlobalOptions

if TYPE_CHECKING:
    from jobcloud.client.sign_in import Http, Site

Device = Annotated[
    bool, typer.Option("--device", help="Sign in with a browser on another device, by a code that is shown here.")
]


def login(ctx: typer.Context, device: Device = False) -> None:
    """Sign in at the identity provider of the server. Later commands of this user then need no token.

    A browser opens on this machine. Without a browser, the command shows an address and a code for another device.

    The tokens are in a file that only this user can read. The command line renews them before they expire.
    """
    import time

    from jobcloud.client.credentials import Credentials
    from jobcloud.client.http import Client
    from jobcloud.client.sign_in import Http, site_of, tokens_of

    http, credentials = Http(), Credentials(_server(ctx))
    with Client(credentials.server) as client:
        site = site_of(client, http)
    render.say(f"{credentials.server} trusts {site.issuer}")
    answer = _sign_in(site, http, device=device)
    with credentials.locked():
        credentials.write(tokens_of(answer, site, credentials.server, time.time()))
    render.say("signed in")
    missing = set(site.scopes) - set(str(answer.get("scope", " ".join(site.scopes))).split())
    if missing and not site.resource:
        render.complain(f"the identity provider did not grant: {', '.join(sorted(missing))}")
    if not answer.get("refresh_token"):
        render.complain("the identity provider sent no refresh token: sign in again when the access token ends")


def logout(ctx: typer.Context) -> None:
    """Sign out: remove the tokens of the server from this machine, and end the sign-in at the identity provider."""
    from jobcloud.client.credentials import Credentials
    from jobcloud.client.sign_in import Http, SignInError, revoke

    credentials = Credentials(_server(ctx))
    with credentials.locked():
        tokens = credentials.read()
        credentials.remove()
    if tokens is None:
        render.say(f"nobody is signed in at {credentials.server}")
        return
    try:
        revoke(tokens, Http())
    except SignInError as error:
        render.complain(f"the tokens are removed here, but they may still work: {error}")
    render.say("signed out")


def _sign_in(site: Site, http: Http, *, device: bool) -> dict[str, Any]:
    from jobcloud.client.sign_in import by_browser, by_device, open_browser

    if not device and site.authorization_url and (_has_screen() or not site.device_url):

        def show(url: str) -> None:
            if not open_browser(url):
                render.say(f"open this address in a browser on this machine: {url}")

        return by_browser(site, http, show)

    def show_code(found: Mapping[str, str]) -> None:
        render.say(f"open {found['verification_uri']} on any device, and enter the code {found['user_code']}")
        if found["verification_uri_complete"]:
            render.say(f"or open {found['verification_uri_complete']}")

    return by_device(site, http, show_code)


def _has_screen() -> bool:
    """Whether a browser can show a window here. Over SSH, it would show on another machine."""
    if os.environ.get("SSH_CONNECTION"):
        return False
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY") or os.environ.get("BROWSER"))


def _server(ctx: typer.Context) -> str:
    from jobcloud.client import context

    options = ctx.ensure_object(GlobalOptions)
    return context.find(options.server, options.token).url

"""The file of channels: errors name the field and the fix, and show no secret."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from jobcloud.errors import ConfigError
from jobcloud.model import Condition
from jobcloud.scheduler.state import AlertChannel
from jobcloud.server.alerts.channels import MAX_CHANNELS, load

GOOD = """
[heartbeat]
url = "https://hc.example.org/ping/s3cret"
every = "30s"

[channels.ops]
kind = "slack"
url = "https://hooks.example.org/s3cret"

[channels.billing]
kind = "dingtalk"
url = "https://oapi.dingtalk.com/robot/send?access_token=s3cret"
secret = "s3cret"
conditions = ["run_dead", "late"]
teams = ["billing"]
owners = ["ali*"]

[channels.mail]
kind = "email"
host = "mail.example.org"
user = "ops"
password = "s3cret"
sender = "jobcloud@example.org"
to = ["alice@example.org"]
"""

MAIL = "[channels.m]\nkind = 'email'\nhost = 'h'\nsender = 'a@b.c'"
MANY = "\n".join(f"[channels.c{n}]\nkind = 'slack'\nurl = 'https://h/'" for n in range(MAX_CHANNELS + 1))


def write(folder: Path, text: str, mode: int = 0o600) -> Path:
    path = folder / "channels.toml"
    path.write_text(text)
    path.chmod(mode)
    return path


def test_file_is_read_and_its_secrets_are_not_shown(tmp_path: Path) -> None:
    found = load(write(tmp_path, GOOD))
    assert list(found.channels) == ["ops", "billing", "mail"]
    assert found.channels["billing"].filter == AlertChannel(
        "billing", frozenset({Condition.RUN_DEAD, Condition.LATE}), frozenset({"billing"}), ("ali*",)
    )
    assert found.heartbeat is not None
    assert found.heartbeat.every.total_seconds() == 30
    assert "s3cret" not in repr(found)
    assert "s3cret" not in str(found.channels["mail"])


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("[channels.ops]\nkind = 'pager'\nurl = 'https://s3cret'", "channels.ops.kind"),
        ("[channels.ops]\nkind = 'slack'", "channels.ops: url: is not a URL"),
        ("[channels.ops]\nkind = 'slack'\nurl = 'ftp://s3cret/'", "channels.ops: url: is not a URL"),
        ("[channels.ops]\nkind = 'slack'\nurl = 'https://ops:s3cret@host/'", "channels.ops: url: is not a URL"),
        ("[channels.ops]\nkind = 'slack'\nurl = 'https://[s3cret/'", "channels.ops: url: is not a URL"),
        ("[channels.ops]\nkind = 'slack'\nurl = 7", "channels.ops.url"),
        ("[channels.ops]\nkind = 'slack'\nurl = 'https://host/s3cret'\nhost = 'mail'", "channels.ops: host"),
        ("[channels.ops]\nkind = 'slack'\nurl = 'https://host/s3cret'\nsecrets = 's3cret'", "channels.ops.secrets"),
        ("[channels.ops]\nkind = 'slack'\nurl = 'https://host/s3cret'\nconditions = ['dead']", "conditions"),
        ("[channels.Ops]\nkind = 'slack'\nurl = 'https://host/s3cret'", "'Ops' cannot be the name"),
        ("[channels.m]\nkind = 'email'\nsender = 'a@b.c'\nto = ['a@b.c']", "channels.m: host: is missing"),
        ("[channels.m]\nkind = 'email'\nhost = 'h'\nsender = 'a@b.c'", "channels.m: to: is missing"),
        ('[channels.m]\nkind = "email"\nhost = "h"\nsender = "a@b.c"\nto = ["a\\nb@c.d"]', "to: is not a mail address"),
        (f"{MAIL}\nto = ['a@b.c']\nuser = 'u'", "has no effect alone"),
        (GOOD.replace('user = "ops"', 'user = "ops"\ntls = "off"'), "password in clear text"),
        ("[heartbeat]\nurl = 'https://host/s3cret'\nevery = '1ms'", "heartbeat: every: is out of range"),
        ("[heartbeat]\nurl = 'https://host/s3cret'\nevery = 5", "heartbeat.every"),
        ("[channel.ops]\nkind = 'slack'", "channel"),
        ("kind = s3cret", "TOML"),
        (f"s3cret = {'[' * 5_000}", "is nested too deeply"),
        (GOOD + "# long" * 50_000, "is too long (at most 256 KiB)"),
        (MANY, "channels"),
    ],
)
def test_wrong_file_is_refused_without_showing_a_value(tmp_path: Path, text: str, part: str) -> None:
    with pytest.raises(ConfigError) as refused:
        load(write(tmp_path, text))
    assert refused.value.field == "alerts.channels_file"
    assert part in str(refused.value)
    assert "s3cret" not in str(refused.value)


def test_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"can be read by every user of this machine \(run: chmod 600"):
        load(write(tmp_path, GOOD, 0o644))
    with pytest.raises(ConfigError, match="cannot be read"):
        load(tmp_path / "none")


def test_pipe_is_refused_without_waiting_for_a_writer(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe", 0o600)
    for path in (tmp_path / "pipe", tmp_path):
        with pytest.raises(ConfigError, match=r"is not a regular file|Is a directory"):
            load(path)

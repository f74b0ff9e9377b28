"""The texts of the pages in each language."""

from __future__ import annotations

from collections.abc import Mapping

#: language → key → text. The first language is the default.
TEXTS: Mapping[str, Mapping[str, str]] = {
    "en": {
        "sign_in": "Sign in",
        "user": "User",
        "password": "Password",
        "sign_in_with": "Sign in with {provider}",
        "link_hint": "On the machine of the scheduler, the command below prints a link that signs you in once.",
        "only_link": "This server has no passwords and no single sign-on.",
        "code": "Code of the link",
        "code_hint": "It is the part of the link behind the character #.",
        "wrong": "The user or the password is wrong.",
        "wrong_link": "This link is not valid. It works once, within 15 minutes. Ask for another one.",
        "too_many": "There were too many tries. Wait a minute, then try again.",
        "busy": "The server is busy. Try again in a few seconds.",
        "ended": "The session has ended.",
        "signed_in_as": "You are signed in as",
        "via": "by",
        "until": "The session ends at the latest at",
        "open_server": "This server asks nobody to sign in.",
        "console": "Console",
        "description": "Description of the API",
        "sign_out": "Sign out",
        "sign_out_everywhere": "Sign out everywhere",
    },
    "zh": {
        "sign_in": "登录",
        "user": "用户名",
        "password": "密码",
        "sign_in_with": "使用 {provider} 登录",
        "link_hint": "在调度器所在的机器上，下面的命令会打印一个一次性登录链接。",
        "only_link": "此服务器既没有密码登录，也没有单点登录。",
        "code": "链接中的代码",
        "code_hint": "即链接中 # 之后的部分。",
        "wrong": "用户名或密码错误。",
        "wrong_link": "此链接无效。链接只能使用一次，15 分钟内有效。请重新获取。",
        "too_many": "尝试次数过多。请等待一分钟后再试。",
        "busy": "服务器繁忙，请稍后再试。",
        "ended": "会话已结束。",
        "signed_in_as": "当前登录身份",
        "via": "方式",
        "until": "会话最迟结束于",
        "open_server": "此服务器不要求登录。",
        "console": "控制台",
        "description": "API 说明",
        "sign_out": "退出登录",
        "sign_out_everywhere": "在所有设备上退出登录",
    },
}
_DEFAULT = next(iter(TEXTS))
_MAX_HEADER = 1_000


def language_of(accepted: str) -> str:
    """The language of TEXTS that a header Accept-Language prefers (RFC 9110, section 12.5.4)."""
    best, quality = _DEFAULT, 0.0
    for part in accepted[:_MAX_HEADER].split(","):
        name, _, parameter = part.partition(";")
        language = name.strip().lower().partition("-")[0]
        weight = _weight(parameter)
        if language in TEXTS and weight > quality:
            best, quality = language, weight
    return best


def _weight(parameter: str) -> float:
    key, _, value = parameter.strip().partition("=")
    if not key:
        return 1.0
    try:
        weight = float(value)
    except ValueError:
        return 0.0
    return weight if 0 <= weight <= 1 else 0.0

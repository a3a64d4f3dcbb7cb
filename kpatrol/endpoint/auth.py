"""The two accounts: who asks, and with which right. Pure; the passwords come from files read at start."""

import base64
import binascii
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from urllib.parse import unquote

from kpatrol.endpoint.sql_tokens import Refused

Role = Literal["writer", "reader"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """A name, its password and its right."""

    user: str
    role: Role
    password: str = field(repr=False)


def read_password(path: Path) -> str:
    """The password in a file, line ends cut. Raises ValueError when there is none; OSError when unreadable."""
    password = path.read_text(encoding="utf-8").rstrip("\r\n")
    if not password:
        raise ValueError(f"{path}: the password file is empty")
    return password


def credentials(headers: Mapping[str, str], query: Mapping[str, str]) -> tuple[str, str]:
    """(user, password) of a request: X-ClickHouse-User and -Key, basic auth, or user= and password=."""
    if "X-ClickHouse-User" in headers:
        return unquote(headers["X-ClickHouse-User"]), unquote(headers.get("X-ClickHouse-Key", ""))
    scheme, _, value = headers.get("Authorization", "").partition(" ")
    if scheme.lower() == "basic":
        try:
            user, _, password = base64.b64decode(value, validate=True).decode("utf-8").partition(":")
        except (binascii.Error, UnicodeDecodeError):
            return "", ""
        return user, password
    return query.get("user", ""), query.get("password", "")


def authenticate(*, user: str, password: str, accounts: tuple[Account, ...]) -> Account:
    """The account of these credentials. Raises Refused (403, code 516), alike for a wrong name and a wrong password."""
    found: Account | None = None
    for account in accounts:
        # Every account is compared, so the time taken does not tell which names exist.
        right_user = hmac.compare_digest(account.user.encode(), user.encode())
        right_password = hmac.compare_digest(account.password.encode(), password.encode())
        if right_user and right_password:
            found = account
    if found is None:
        raise Refused(
            f"{user or 'default'}: Authentication failed: password is incorrect, or there is no user with such name.",
            code=516,
            name="AUTHENTICATION_FAILED",
            status=403,
        )
    return found

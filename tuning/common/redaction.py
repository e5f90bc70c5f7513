"""Keeping secrets out of whatever others will read: parameters, tags, artifacts, what is printed.

A secret is the value of an environment variable whose name says so, a password in an address (of the environment's
variables, or in any text), and what has the shape of a well-known key. It is replaced by ``***``.
"""

from __future__ import annotations

import os
import re
import urllib.parse
from collections.abc import Iterator, Mapping
from pathlib import Path

from data.atomic_write import write_atomically

MASK = "***"
MIN_SECRET_LENGTH = 6  # characters: a shorter value stands in too many innocent words
MAX_TEXT_BYTES = 16 * 2**20  # bytes of a file that is looked through; ours are reports of a few MB
SECRET_NAME = re.compile(r"PASSW|SECRET|TOKEN|API_?KEY|ACCESS_?KEY|PRIVATE_?KEY|CREDENTIAL", re.IGNORECASE)
NOT_SECRET = {"true", "false", "token", "disabled", "enabled"}
URL_CREDENTIALS = re.compile(r"(?<=://)([^\s/:@\"']*):([^\s/\"']+)@(?=[\w\[])")
TOKEN_PATTERNS = re.compile(
    r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b"  # AWS access key ids
    r"|\bgh[opusr]_[A-Za-z0-9]{36,}\b|\bgithub_pat_\w{50,}\b"  # GitHub
    r"|\bhf_[A-Za-z0-9]{30,}\b"  # Hugging Face
    r"|(?<=Bearer )[\w.~+/=-]{12,}|(?<=Basic )[A-Za-z0-9+/=]{12,}"  # HTTP headers
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----[\s\S]+?-----END [A-Z ]*PRIVATE KEY-----"
)


class Redactor:
    """Hides the secrets that the environment holds when it is made."""

    def __init__(self) -> None:
        found = sorted(set(_secrets(os.environ)), key=len, reverse=True)
        self._known = re.compile("|".join(map(re.escape, found))) if found else None

    def text(self, text: str) -> str:
        """Return the text with its secrets hidden."""
        if self._known is not None:
            text = self._known.sub(MASK, text)
        if "://" in text:
            text = URL_CREDENTIALS.sub(rf"\1:{MASK}@", text)
        return TOKEN_PATTERNS.sub(MASK, text)

    def file(self, path: Path) -> None:
        """Hide the secrets in a file of text, in place; what is no UTF-8 or very large stays as it is."""
        if path.stat().st_size > MAX_TEXT_BYTES:
            return
        try:
            before = path.read_bytes().decode()
        except UnicodeDecodeError:
            return
        after = self.text(before)
        if after != before:
            write_atomically(path, after.encode())

    def value(self, value: object) -> object:
        """Return a text, or a mapping of texts, with its secrets hidden; anything else as it is."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            return {name: self.value(inner) for name, inner in value.items()}
        return value


def redact(text: str) -> str:
    """Return the text with the secrets of today's environment hidden."""
    return Redactor().text(text)


def _secrets(environment: Mapping[str, str]) -> Iterator[str]:
    for name, value in environment.items():
        is_path = os.path.exists(value)  # noqa: PTH110  # says no to a text that is too long to be one
        if SECRET_NAME.search(name) and value.lower() not in NOT_SECRET and not is_path:
            yield from _encodings(value)
        if "://" in value and "@" in value:
            try:
                password = urllib.parse.urlsplit(value).password
            except ValueError:
                continue
            if password:
                yield from _encodings(urllib.parse.unquote(password))


def _encodings(secret: str) -> Iterator[str]:
    """Yield the secret as it may stand in a text: plain, and as a part of an address; nothing if it is too short."""
    if len(secret) >= MIN_SECRET_LENGTH:
        yield from {secret, urllib.parse.quote(secret, safe=""), urllib.parse.quote_plus(secret)}

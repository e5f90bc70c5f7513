"""Masking of secrets in parameters, tags, artifacts and printed text.

Secrets are the values of environment variables with names such as ``*_TOKEN``, passwords in URLs (in the environment or
in the text itself), and text in the format of a well-known key. They are replaced by ``***``.
"""

from __future__ import annotations

import os
import re
import urllib.parse
from collections.abc import Iterator, Mapping
from pathlib import Path

from data.atomic_write import write_atomically

MASK = "***"
MIN_SECRET_LENGTH = 6  # characters: a shorter value also occurs in ordinary words
MAX_TEXT_BYTES = 16 * 2**20  # size limit of a searched file; reports have a few MB
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
    """Masks secrets; those of the environment are read once, in the constructor."""

    def __init__(self) -> None:
        secrets = sorted(set(_secrets(os.environ)), key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, secrets))) if secrets else None

    def text(self, text: str) -> str:
        """Return the text with secrets masked."""
        if self._pattern is not None:
            text = self._pattern.sub(MASK, text)
        if "://" in text:
            text = URL_CREDENTIALS.sub(rf"\1:{MASK}@", text)
        return TOKEN_PATTERNS.sub(MASK, text)

    def file(self, path: Path) -> None:
        """Mask secrets in a text file, in place; a very large file or one that is not UTF-8 is left unchanged."""
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
        """Return a string, or a mapping of strings, with secrets masked; any other value unchanged."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            return {name: self.value(inner) for name, inner in value.items()}
        return value


def redact(text: str) -> str:
    """Return the text with secrets masked, including those of the current environment."""
    return Redactor().text(text)


def without_credentials(url: str) -> str:
    """Return a URL without the user name and the password that it may contain."""
    parts = urllib.parse.urlsplit(url)
    if "@" not in parts.netloc:
        return url  # urlunsplit drops two slashes of sqlite:////folder/mlflow.db
    return urllib.parse.urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def _secrets(environment: Mapping[str, str]) -> Iterator[str]:
    for name, value in environment.items():
        is_path = os.path.exists(value)  # noqa: PTH110  # False for a text too long for a path
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
    """Yield the secret as plain text and as part of a URL; nothing if it is too short."""
    if len(secret) >= MIN_SECRET_LENGTH:
        yield from {secret, urllib.parse.quote(secret, safe=""), urllib.parse.quote_plus(secret)}

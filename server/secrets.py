"""Fill in .env: ``python -m server.secrets`` copies .env.example with a random password wherever one is required."""

from __future__ import annotations

import re
import secrets
from pathlib import Path

EXAMPLE, ENV_FILE = Path(".env.example"), Path(".env")
EMPTY = re.compile(r"^([A-Z0-9_]+)=$", re.MULTILINE)


def fill_secrets(example: str) -> str:
    """Return the example with a password for each variable that stands empty: hex, for one is a part of an address."""
    return EMPTY.sub(lambda match: f"{match[1]}={secrets.token_hex(24)}", example)


def main() -> None:
    """Write .env, readable by its owner only; one that is there stays."""
    if not ENV_FILE.exists():
        ENV_FILE.touch(mode=0o600)
        ENV_FILE.write_text(fill_secrets(EXAMPLE.read_text()))


if __name__ == "__main__":
    main()

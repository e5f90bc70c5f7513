"""Create .env: ``python -m server.secrets`` copies .env.example and generates each required password."""

from __future__ import annotations

import re
import secrets
from pathlib import Path

EXAMPLE, ENV_FILE = Path(".env.example"), Path(".env")
EMPTY = re.compile(r"^([A-Z0-9_]+)=$", re.MULTILINE)


def fill_secrets(example: str) -> str:
    """Return the example with a random password for each empty variable; hex, because one is part of a URI."""
    return EMPTY.sub(lambda match: f"{match[1]}={secrets.token_hex(24)}", example)


def main() -> None:
    """Write .env, readable by its owner only; an existing file is kept."""
    if not ENV_FILE.exists():
        ENV_FILE.touch(mode=0o600)
        ENV_FILE.write_text(fill_secrets(EXAMPLE.read_text()))


if __name__ == "__main__":
    main()

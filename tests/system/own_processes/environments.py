"""New environments with the packages of this one, without our code."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from pathlib import Path


def environment_without_our_code(folder: Path) -> Path:
    """Create an environment in ``folder`` and return its Python; an editable installation is not visible in it."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    (site_packages,) = folder.glob("lib/python*/site-packages")
    (site_packages / "others.pth").write_text(sysconfig.get_path("purelib"))  # whose own .pth files are not read
    return folder / "bin" / "python"

"""Import timm and torchvision without the compiler of torch.

torchvision imports ``torch._dynamo`` for a detection operator, timm to exclude a method of one network from compilation
(torchvision 0.29, timm 1.0). Nothing here is compiled, and the compiler takes longer to import than both.
"""

from __future__ import annotations

import sys
from types import ModuleType

COMPILER = "torch._dynamo"


def import_timm() -> None:
    """Import timm and torchvision; if the compiler was not imported before, it is not imported now."""
    if "timm" in sys.modules or COMPILER in sys.modules:
        return
    compiler, utils = ModuleType(COMPILER), ModuleType(f"{COMPILER}.utils")
    compiler.disable = lambda function, *_, **__: function  # type: ignore[attr-defined]
    utils.is_compile_supported = lambda _device: False  # type: ignore[attr-defined]
    stubs = {COMPILER: compiler, f"{COMPILER}.utils": utils}
    sys.modules.update(stubs)
    try:
        import timm  # noqa: F401
    finally:
        for name in stubs:
            del sys.modules[name]

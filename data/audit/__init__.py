"""The audit: every problem of a data set by file, before any training."""

from __future__ import annotations

from data.audit.report import Audit, audit
from data.audit.sheets import contact_sheets

__all__ = ["Audit", "audit", "contact_sheets"]

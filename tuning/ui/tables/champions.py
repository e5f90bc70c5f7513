"""The champion history of a registered model, for the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.table import Table

from tuning.common.promotion_types import ChampionChange


def history_table(name: str, changes: Sequence[ChampionChange]) -> Table:
    """Return a row per change of the champion, oldest first."""
    table = Table(title=f"Champions of {name}", title_justify="left", title_style="bold", box=None)
    for column in ("time (UTC)", "version", "previous", "change"):
        table.add_column(column, no_wrap=True)
    table.add_column("reason", overflow="fold")
    for change in changes:
        previous = "-" if change.previous is None else str(change.previous)
        table.add_row(change.at.partition("+")[0], str(change.version), previous, change.kind, change.reason)
    return table


def alias_lines(name: str, changes: Sequence[ChampionChange], version_by_alias: Mapping[str, int | None]) -> list[str]:
    """Return the version of each alias, and a warning if the champion is not the last one of the history."""
    lines = [f"models:/{name}@{alias}: {_version(version)}" for alias, version in version_by_alias.items()]
    last = changes[-1].version if changes else None
    if version_by_alias.get("champion") != last:
        lines.append(
            f"the champion alias was set outside Freezeline; the last champion in the history: {_version(last)}"
        )
    return lines


def _version(version: int | None) -> str:
    return "none" if version is None else f"version {version}"

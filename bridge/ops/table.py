"""Aligned tables for people at a terminal."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import click


def money(dollars: float) -> str:
    """Dollars for people: cents, and as many further digits as a small amount needs."""
    if 0 < dollars < 0.0001:
        return "<$0.0001"
    return f"${dollars:.2f}" if dollars == 0 or dollars >= 0.1 else f"${dollars:.4f}"


def print_table(
    head: Sequence[str], rows: Sequence[Sequence[str]], *, right: Collection[int] = (), empty: str = ""
) -> None:
    """Print rows under a head; columns in `right` are right-aligned; `empty` stands for no rows."""
    if not rows and empty:
        click.echo(empty)
        return
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]
    for number, row in enumerate((head, *rows)):
        cells = [c.rjust(w) if i in right else c.ljust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))]
        line = "  ".join(cells).rstrip()
        click.echo(click.style(line, bold=True) if number == 0 else line)

"""Aligned tables for people at a terminal."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import click


def money(dollars: float) -> str:
    """Dollars for people: cents, and as many further digits as a small amount needs."""
    if 0 < dollars < 0.0001:
        return "<$0.0001"
    return f"${dollars:,.2f}" if dollars == 0 or dollars >= 0.1 else f"${dollars:.4f}"


def print_table(
    head: Sequence[str] | None,
    rows: Sequence[Sequence[str]],
    *,
    right: Collection[int] = (),
    empty: str = "",
    widths: Sequence[int] | None = None,
    colour: Callable[[str], str | None] = lambda cell: None,
) -> None:
    """Print rows under a head, if there is one; columns in `right` are right-aligned.

    `empty` stands for no rows. `widths` are the least widths, for a table that is printed row by row.
    `colour(cell)` names the colour of a cell; colours are left out where the output is no terminal.
    """
    if not rows and empty:
        click.echo(empty)
        return
    lines = [row for row in (head, *rows) if row is not None]
    least = widths or [0] * len(lines[0])
    wide = [max(least[i], *(len(_plain(line[i])) for line in lines)) for i in range(len(lines[0]))]
    for line in lines:
        cells = [_plain(cell) for cell in line]
        padded = [c.rjust(w) if i in right else c.ljust(w) for i, (c, w) in enumerate(zip(cells, wide, strict=True))]
        if line is head:
            click.secho("  ".join(padded).rstrip(), bold=True)
            continue
        styled = [click.style(p, fg=found) if (found := colour(c)) else p for c, p in zip(cells, padded, strict=True)]
        click.echo("  ".join(styled).rstrip())


def _plain(cell: str) -> str:
    """A cell without anything that would move the cursor or colour the terminal: names come from outside."""
    return "".join(character if character.isprintable() else "?" for character in cell)

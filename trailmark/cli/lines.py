"""Long tables, written as they come: columns as wide as what has been seen so far, no colours, nothing folded.

Rich measures and wraps every cell, which takes seconds for thousands of lines.  Pure: cells in, text out.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from trailmark.cli.plain import printable

_GAP = "  "


class Lines:
    r"""A table in parts; the first part brings the header.

    >>> table = Lines(("seq", "node"), right={"seq"})
    >>> print(table.text([("1", "read"), ("2", "pay")]), end="")
    seq  node
      1  read
      2  pay
    >>> print(table.text([("1000", "pay")]), end="")
    1000  pay
    """

    def __init__(self, columns: Sequence[str], *, right: Collection[str] = ()) -> None:
        self._header: tuple[str, ...] | None = tuple(columns)
        self._is_right = [column in right for column in columns]
        self._widths = [len(column) for column in columns]

    def text(self, rows: Iterable[Sequence[str]]) -> str:
        """The next lines."""
        cells = [[printable(cell) for cell in row] for row in rows]
        for row in cells:
            for index, cell in enumerate(row):
                self._widths[index] = max(self._widths[index], width_of(cell))
        lines = [self._header, *cells] if self._header is not None else cells
        header, self._header = self._header, None
        return "".join(self._line(row, is_header=row is header) for row in lines)

    def _line(self, row: Sequence[str], *, is_header: bool) -> str:
        parts = []
        for cell, width, is_right in zip(row, self._widths, self._is_right, strict=True):
            blanks = " " * (width - width_of(cell))
            parts.append(blanks + cell if is_right and not is_header else cell + blanks)
        return _GAP.join(parts).rstrip() + "\n"


def width_of(text: str) -> int:
    """How many columns of a terminal a text takes.

    >>> width_of("pay"), width_of("支払い")
    (3, 6)
    """
    if text.isascii():
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)

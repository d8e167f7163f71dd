"""Writes the table of all parts into docs/parts.md, from the registries.

python tools/write_parts_table.py
"""

from __future__ import annotations

from pathlib import Path

from masklet import builtins
from masklet.registry import PartEntry, Registry

PAGE = Path(__file__).resolve().parent.parent / "docs" / "parts.md"
BEGIN, END = "<!-- parts: written by tools/write_parts_table.py -->\n", "<!-- end of parts -->\n"


def build_table() -> str:
    """Every part that ships: its kind, how it is written, what it is."""
    kinds: dict[str, list[PartEntry]] = {
        registry.kind: list(registry.builtins) for registry in vars(builtins).values() if isinstance(registry, Registry)
    }
    kinds["system"] += builtins.QUERY_SYSTEMS.values()
    rows = [f"| {kind} | `{part.form or part.name}` | {part.help} |" for kind, parts in kinds.items() for part in parts]
    return "\n".join(["| kind | name | what it is |", "|---|---|---|", *rows]) + "\n"


def insert_table(page: str) -> str:
    """The page with the table between its marks."""
    before, _, rest = page.partition(BEGIN)
    return f"{before}{BEGIN}{build_table()}{END}{rest.partition(END)[2]}"


if __name__ == "__main__":
    PAGE.write_text(insert_table(PAGE.read_text()))

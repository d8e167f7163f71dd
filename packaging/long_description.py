"""The package's description on PyPI: README.md without what leads into the repository, which PyPI has not.

Where `[project.urls]` of pyproject.toml has a Repository, links and pictures lead there.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

LINK = re.compile(r"(!?)\[([^\]]*)\]\((?!https?:|mailto:|#)([^)]+)\)")


def make_long_description(text: str, repository: str = "") -> str:
    """A page in which no link or picture is relative: they lead into the `repository`, the address of one, or where
    there is none, pictures are left out and links are their words.
    """

    def lead(found: re.Match[str]) -> str:
        picture, words, target = found.groups()
        if not repository:
            return "" if picture else words
        return f"{picture}[{words}]({repository.rstrip('/')}/{'raw' if picture else 'blob'}/HEAD/{target})"

    return re.sub(r"\n{3,}", "\n\n", LINK.sub(lead, text))


class LongDescription(MetadataHookInterface):
    """Gives it to hatchling when the package is built."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Sets `readme` of the project's `metadata`."""
        text = (Path(self.root) / "README.md").read_text(encoding="utf-8")
        made = make_long_description(text, metadata.get("urls", {}).get("Repository", ""))
        metadata["readme"] = {"content-type": "text/markdown", "text": made}

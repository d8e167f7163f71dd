"""What the site has beside docs/: cards, changelog, pages made from commands and registries, and drawings in
the colours of the theme.

Links that lead out of docs/ in the repository are turned into ones within the site, or into the path alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
SITE = {"README.md": "index.md", "CHANGELOG.md": "changelog.md", "CONTRIBUTING.md": "contributing.md"}
LINK = re.compile(r"(!?\[[^\]]*\])\(([^)#: ]+)(#[^) ]*)?\)")


def on_files(files: Any, config: Any) -> Any:
    """Adds the pages that are not in docs/ as they are."""
    from mkdocs.structure.files import File  # only where the site is built

    def add(uri: str, text: str) -> None:
        files.append(File.generated(config, uri, content=text))

    for card in sorted((ROOT / "cards").glob("*.md")):
        add(f"cards/{card.name}", card.read_text())
    add("changelog.md", (ROOT / "CHANGELOG.md").read_text())
    add("contributing.md", (ROOT / "CONTRIBUTING.md").read_text())
    add("commands.md", "\n".join(format_commands()))
    add("settings.md", "\n".join(format_settings()))
    return files


def on_page_markdown(markdown: str, page: Any, files: Any, **_: Any) -> str:
    """Turns links between the repository's folders into links within the site."""
    uri = page.file.src_uri
    home = ROOT / (uri if uri.startswith("cards/") else find_source(uri))
    return LINK.sub(lambda link: rewrite_link(link, home.parent, uri, files), markdown)


FIGURE = re.compile(r'<img alt="[^"]*" src="(?:\.\./)*figures/([a-z0-9]+)\.svg"\s*/?>')


def on_page_content(html: str, page: Any, **_: Any) -> str:
    """Puts drawings into the page itself, so that their ink is the theme's text."""
    return FIGURE.sub(lambda image: read_figure(image[1]), html)


def read_figure(name: str) -> str:
    """A drawing of docs/figures without its own style, which would be the whole page's."""
    text = (ROOT / "docs" / "figures" / f"{name}.svg").read_text()
    return f'<span class="figure">{re.sub(r"<style>.*?</style>", "", text, flags=re.DOTALL).strip()}</span>'


def find_source(uri: str) -> str:
    """Where in the repository the text of a page lies."""
    names = {page: source for source, page in SITE.items() if page != "index.md"}
    return names.get(uri, f"docs/{uri}")


def rewrite_link(link: re.Match[str], folder: Path, uri: str, files: Any) -> str:
    """A link of the page `uri`, whose source lies in `folder`: to a page of the site, or the path it names."""
    target = (folder / link[2]).resolve()
    try:
        path = target.relative_to(ROOT).as_posix()
    except ValueError:
        return link[0]
    inside = SITE.get(path, path.removeprefix("docs/"))
    if files.get_file_from_path(inside) is None:
        return f"{link[1][1:-1]} (`{path}`)" if target.exists() else link[0]
    up = "../" * (len(PurePosixPath(uri).parts) - 1)
    return f"{link[1]}({up}{inside}{link[3] or ''})"


def format_commands() -> Iterator[str]:
    """The command line, from the commands themselves."""
    from masklet.cli import COMMANDS, import_command

    yield "# Command line\n\nMade from the commands themselves; `masklet COMMAND --help` says the same.\n"
    for name, (_, line) in COMMANDS.items():
        command = import_command(name)
        yield f"## masklet {name}\n\n{line}\n"
        commands = getattr(command, "commands", None)
        for called, one in (commands or {name: command}).items():
            if commands:
                yield f"### masklet {name} {called}\n\n{one.help or ''}\n"
            yield from format_parameters(one)


def format_parameters(command: Any) -> Iterator[str]:
    """One command's arguments and options as a table."""
    rows = [p for p in command.params if not getattr(p, "hidden", False) and p.name != "help"]
    if not rows:
        return
    yield "| argument | meaning | default |\n|---|---|---|"
    for parameter in rows:
        option = parameter.param_type_name == "option"
        names = ", ".join(parameter.opts) if option else (parameter.metavar or parameter.name.upper())
        default = parameter.default
        shown = "" if callable(default) or default in (None, False, True, "", []) else f"`{default}`"
        text = " ".join((getattr(parameter, "help", "") or "").split())
        text = re.sub(r"([|\[\]])", r"\\\1", text).replace("<", "&lt;")
        yield f"| `{names}` | {text} | {shown} |"
    yield ""


def format_settings() -> Iterator[str]:
    """Every setting of every part, as `masklet run --help-settings` lists them."""
    from masklet.builtins import PROPAGATORS, SEGMENTERS, SYSTEMS

    yield "# Settings\n\nOf the system by `--set NAME=VALUE`, of its parts by `--set segmenter.NAME=VALUE` and "
    yield "`--set propagator.NAME=VALUE`.\n"
    for kind, registry in (("System", SYSTEMS), ("Segmenter", SEGMENTERS), ("Propagator", PROPAGATORS)):
        for entry in registry.builtins:
            rows = list_settings(entry)
            if rows:
                yield f"## {kind} {entry.name}\n\n{entry.help}\n\n| setting | default | meaning |\n|---|---|---|"
                yield from rows
                yield ""


def list_settings(entry: Any) -> list[str]:
    """The rows of one part's settings."""
    from masklet.registry import list_part_settings

    return [
        f"| `{one.name}` | `{one.default}` | {one.meaning} |".replace("<", "&lt;")
        for one in list_part_settings(entry).values()
    ]

"""What the server can be asked, as it tells programs and people: the same table that it answers by."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from desks import make_desk
from starlette.testclient import TestClient
from test_server import BEARER, make_client
from typer.testing import CliRunner

from masklet.cli import app, view
from masklet.cli.view import find_token
from masklet.core.errors import InputError
from masklet.view.verbs import VERBS


@pytest.fixture
def client(tmp_path: Path) -> TestClient:
    return make_client(make_desk(tmp_path / "out"))


def test_every_verb_is_described_as_it_is_checked(client: TestClient) -> None:
    told = client.get("/openapi.json", headers=BEARER).json()
    assert told["openapi"].startswith("3.1") and told["security"] == [{"token": []}]
    for name, verb in VERBS.items():
        schema = told["paths"][f"/videos/{{video}}/{name}"]["post"]["requestBody"]["content"]["application/json"][
            "schema"
        ]
        assert list(schema["properties"]) == list(verb.arguments)
        missing = client.post(f"/videos/0/{name}", json={}, headers=BEARER)
        if schema["required"]:
            assert missing.status_code == 400 and schema["required"][0] in missing.json()["error"]
        odd = client.post(f"/videos/0/{name}", json={"odd": 1}, headers=BEARER)
        assert odd.status_code == 400 and schema["additionalProperties"] is False


def test_every_path_of_the_document_is_served(client: TestClient) -> None:
    for path, methods in client.get("/openapi.json", headers=BEARER).json()["paths"].items():
        place = path.replace("{video}", "0").replace("{frame}", "3")
        for method in methods:
            told = client.request(method, place, headers=BEARER, **({"json": {}} if method == "post" else {}))
            assert told.status_code in (200, 400), (method, place)


def test_the_page_shows_every_verb_and_fetches_nothing_from_elsewhere(client: TestClient) -> None:
    assert client.get("/api").status_code == 403, "not without the token"
    page = client.get("/api", headers=BEARER).text
    HTMLParser().feed(page)
    assert all(f"/videos/{{video}}/{name}<" in page for name in VERBS)
    links = re.findall(r'(?:href|src)="([^"]+)"', page)
    assert set(links) <= {"/page/api.css", "/openapi.json", "data:,"} and "<script" not in page
    assert client.get("/page/api.css", headers=BEARER).status_code == 200


def test_serve_opens_no_browser(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    told: list[Any] = []
    monkeypatch.setattr(view, "open_desks", lambda *given: [given[0]])
    monkeypatch.setattr(view, "serve_page", lambda *given: told.append(given))
    assert CliRunner().invoke(app, ["serve", "clip.mp4", "--port", "8123"]).exit_code == 0
    assert told == [([["clip.mp4"]], "127.0.0.1", 8123, False)]


def test_the_token_is_new_or_what_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MASKLET_TOKEN", raising=False)
    assert len(find_token()) >= 16 and find_token() != find_token()
    monkeypatch.setenv("MASKLET_TOKEN", "a-token-of-my-own-1")
    assert find_token() == "a-token-of-my-own-1"
    for weak in ("short", "with blanks in it, yes", "ümlaut-ümlaut-ümlaut"):
        monkeypatch.setenv("MASKLET_TOKEN", weak)
        with pytest.raises(InputError, match="MASKLET_TOKEN"):
            find_token()

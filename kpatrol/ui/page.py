"""The page's text: as it is served, and as one file that needs nothing else (`kpatrol report --html`)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from kpatrol.reading.store import Store
from kpatrol.ui import facts

ASSETS = Path(__file__).parent / "assets"
STYLES = ("uPlot.min.css", "page.css")
SCRIPTS = ("uPlot.iife.min.js", "mesh.js", "page.js")
# A page for a ticket holds the meshes of so many rounds, the newest; more would make it too large to attach.
MESHES_KEPT = 5


def page() -> str:
    """The page as a server gives it: styles and scripts by address."""
    styles = "".join(f'<link rel="stylesheet" href="/assets/{name}">' for name in STYLES)
    scripts = "".join(f'<script defer src="/assets/{name}"></script>' for name in SCRIPTS)
    return _page(head=styles, tail=scripts)


def self_contained(documents: dict[str, Any]) -> str:
    """The page as one file; ``documents`` is address → document of everything that it may ask for."""
    styles = "".join(f"<style>{(ASSETS / name).read_text()}</style>" for name in STYLES)
    # `</` would end the script element inside a string.
    kept = json.dumps(documents, separators=(",", ":")).replace("</", "<\\/")
    scripts = f"<script>window.KEPT={kept}</script>"
    scripts += "".join(f"<script>{(ASSETS / name).read_text()}</script>" for name in SCRIPTS)
    return _page(head=styles, tail=scripts)


def _page(*, head: str, tail: str) -> str:
    return (ASSETS / "page.html").read_text().replace("<!--head-->", head).replace("<!--tail-->", tail)


def documents(store: Store, *, task: str = "") -> dict[str, Any]:
    """Everything the page asks for, by the address it asks at. Raises CannotRead."""
    listed = [t for t in facts.tasks(store) if not task or t["task"] == task or t["task"].endswith(f"/{task}")]
    kept: dict[str, Any] = {"tasks": listed, "agents": facts.agents(store), "alarms": facts.alarms(store)}
    for name in (t["task"] for t in listed):
        rounds = facts.rounds(store, task=name)
        kept[f"rounds?task={name}"] = rounds
        kept[f"findings?task={name}"] = facts.findings(store, task=name)
        for round_ in rounds[:MESHES_KEPT]:
            which = {"round_id": int(round_["round_id"]), "round_at": round_["round_at"]}
            address = f"round_id={which['round_id']}&round_at={which['round_at']}"
            vias = facts.protocols(store, **which)
            kept[f"protocols?{address}"] = vias
            for via in ("", *vias):
                kept[f"mesh?{address}&via={via}"] = facts.mesh(store, **which, via=via)
    return kept

"""Mounting the editor's bundle, which the server sends once over HTTP.

Streamlit looks for a component's files in a manifest that it finds by the distribution's name, and the distribution is
not called as this package is, so the manifest is handed over here. That works from a wheel, from an editable install
and from a plain folder alike.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import streamlit as st
from streamlit.components.v2.get_bidi_component_manager import get_bidi_component_manager
from streamlit.components.v2.manifest_scanner import ComponentConfig, ComponentManifest

COMPONENT = "assembler.editor"
ASSETS = Path(__file__).with_name("assets")
BUNDLE = "editor-*.js"


def mount(role: str, data: dict[str, Any], key: str, on_change: Callable[[], None] | None = None) -> Any:
    """Draw one instance of the component; all instances share one module in the browser, and so one document."""
    _announce()
    component = st.components.v2.component(COMPONENT, js=BUNDLE)
    watch: dict[str, Any] = {"on_graph_change": on_change} if on_change else {}
    size: Literal["content"] | int = "content" if role == "editor" else 1
    return component(key=key, data={"role": role, **data}, height=size, **watch)


def _announce() -> None:
    """Tell this process's server where the files are, once."""
    manager = get_bidi_component_manager()
    if manager.get_component_path(COMPONENT) is None:
        package, _, name = COMPONENT.partition(".")
        config = ComponentConfig(name=name, asset_dir=ASSETS.name)
        manager.register_from_manifest(ComponentManifest(package, "1", [config]), ASSETS.parent)

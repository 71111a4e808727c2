"""The frame around every page: navigation, and a sentence where something goes wrong."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from assembler.errors import AssemblerError
from ui import show
from ui.views import export, gallery, runs, train, try_it

ICON = str(Path(__file__).with_name("assets") / "icon.svg")
st.set_page_config(page_title="assembler", page_icon=ICON, layout="wide")


def build() -> None:
    from ui.views.build import render

    render()


# Less air above every page, lines of a length that can be read; the canvas of Build takes all the room there is.
STYLE = """<style>
.stMainBlockContainer { padding-top: 4.25rem; padding-bottom: 3rem; max-width: %s; }
.stText > div { font-family: inherit; white-space: pre-wrap; overflow-wrap: anywhere; }
</style>"""

PAGES = [
    st.Page(build, title="Build", icon=":material/account_tree:", url_path="build", default=True),
    st.Page(gallery.render, title="Gallery", icon=":material/grid_view:", url_path="gallery"),
    st.Page(train.render, title="Train", icon=":material/model_training:", url_path="train"),
    st.Page(try_it.render, title="Try", icon=":material/forum:", url_path="try"),
    st.Page(export.render, title="Export", icon=":material/deployed_code:", url_path="export"),
    st.Page(runs.render, title="Runs", icon=":material/history:", url_path="runs"),
]
st.session_state["pages"] = {page.url_path or "build": page for page in PAGES}
page = st.navigation(PAGES, position="top")
st.html(STYLE % ("none" if page.url_path == "" else "84rem"))
try:
    page.run()
except AssemblerError as error:
    show.error(str(error))

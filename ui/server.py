"""What `streamlit run` serves: the app behind its guard, and bundles to download."""

from pathlib import Path

import streamlit as st
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from assembler.errors import AssemblerError
from ui.access import Guard
from ui.exporting import packed
from ui.workspace import Workspace


def download(request: Request) -> Response:
    """A bundle as a zip file, read from the disk as it is sent."""
    workspace, name = Workspace.current(), request.path_params["name"]
    try:
        folder = workspace.named(workspace.bundles, name)
    except AssemblerError as error:
        return PlainTextResponse(str(error), 404)
    if not (folder / "manifest.json").is_file():
        return PlainTextResponse(f"there is no bundle {name}", 404)
    headers = {"Content-Disposition": f'attachment; filename="{name}.zip"'}
    return StreamingResponse(packed(folder), media_type="application/zip", headers=headers)


app = st.App(
    Path(__file__).with_name("app.py"),
    routes=[Route("/bundles/{name}.zip", download)],
    middleware=[Middleware(Guard)],
)

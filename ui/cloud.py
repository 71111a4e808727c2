"""A cloud of points on the page, turning."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import streamlit as st

MOST = 6000
"""Points that are drawn; of a larger cloud, that many, evenly chosen."""
SCRIPT = Path(__file__).parent / "assets" / "cloud.js"
STYLE = "canvas { width: 100%; height: 300px; color: var(--st-primary-color); cursor: grab; touch-action: none; }"


def cloud(points: np.ndarray, key: str) -> None:
    """Draw points [N, 3 + C]; the last three of its channels are colours, if they can be."""
    canvas = f'<canvas role="img" aria-label="{len(points)} points, turning"></canvas>'
    mount = st.components.v2.component("cloud", html=canvas, css=STYLE, js=SCRIPT.read_text(encoding="utf-8"))
    mount(key=key, data=as_data(points))


def as_data(points: np.ndarray) -> dict[str, Any]:
    """What the browser draws: x y z in -1 to 1 with the middle at 0, and a colour for each, if there are any."""
    points = points[np.linspace(0, len(points) - 1, min(MOST, len(points))).astype(int)]
    places = points[:, :3] - (points[:, :3].max(0) + points[:, :3].min(0)) / 2
    places = places / max(float(np.abs(places).max()), 1e-9)
    colours = None
    if points.shape[1] in (6, 9) and points[:, -3:].min() >= 0:  # normals have negative parts
        top = 255.0 if points[:, -3:].max() > 1 else 1.0
        levels = np.clip(points[:, -3:] / top * 255, 0, 255).astype(int)
        colours = [f"#{r:02x}{g:02x}{b:02x}" for r, g, b in levels]
    return {"points": np.round(places, 3).ravel().tolist(), "colours": colours}

"""The Build page."""

import streamlit as st


def render() -> None:
    """Draw the page."""
    st.title("Build")

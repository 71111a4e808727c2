"""The Try page."""

import streamlit as st


def render() -> None:
    """Draw the page."""
    st.title("Try")

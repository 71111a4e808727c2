"""What `streamlit run` serves: the app behind its guard."""

from pathlib import Path

import streamlit as st
from starlette.middleware import Middleware

from ui.access import Guard

app = st.App(Path(__file__).with_name("app.py"), middleware=[Middleware(Guard)])

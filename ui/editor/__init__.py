"""The graph editor as a Streamlit component: its bundle, the messages, and the documents behind it."""

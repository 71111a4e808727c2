"""Adapters: how a part that changes a host is put in, composed, merged, taken off and kept in files."""

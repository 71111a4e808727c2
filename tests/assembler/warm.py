"""Imported once by the server of processes of `test_resume`, so that a run in a process of its own begins at once."""

from importlib import import_module

from assembler.registry import parts

LATE = ("assembler.cli", "assembler.train", "components.encoders._timm", "transformers.models.llama.modeling_llama")

for name in LATE:
    import_module(name)
parts()

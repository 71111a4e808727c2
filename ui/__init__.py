"""The page: draw a model, train it, talk to it, take it away. Started by `assembler ui`."""

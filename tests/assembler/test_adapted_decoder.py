"""A language model with adapters that stay beside its weights goes into the decoder's graph, cache and all."""

import numpy as np
import onnxruntime
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from assembler.bundle.graphs import export_decoder
from components.adapters.llama_adapter import LlamaAdapter
from components.adapters.pfeiffer import Pfeiffer
from components.adapters.prefix import Prefix
from tests.conformance.hosts import TEXT


@pytest.mark.parametrize(
    "part", [Pfeiffer(host="h", reduction=4), Prefix(host="h", length=3), LlamaAdapter(host="h", length=3)]
)
def test_prefill_and_a_step_answer_as_torch_does(part, tmp_path):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        host = LlamaForCausalLM(LlamaConfig(**{**TEXT, "num_hidden_layers": 1}, num_key_value_heads=1)).eval()
    new = part.attach(host, "tune", 1)
    with torch.no_grad():
        for key, parameter in host.named_parameters():
            if key in new:
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    export_decoder(host, tmp_path / "decoder.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "decoder.onnx"), providers=["CPUExecutionProvider"])
    ids = torch.tensor([[5, 9, 3, 17], [7, 2, 8, 30]])
    embeds = host.get_input_embeddings()(ids).detach()
    past = {x.name: np.zeros((2, 1, 0, 8), np.float32) for x in session.get_inputs() if x.name.startswith("past")}
    for start, stop in ((0, 3), (3, 4)):
        feeds = {"inputs_embeds": embeds[:, start:stop].numpy(), "attention_mask": np.ones((2, stop), np.int64)}
        feeds["position_ids"] = np.arange(start, stop)[None].repeat(2, 0)
        logits, *state = session.run(None, {**feeds, **past})
        past = dict(zip(past, state, strict=True))
        with torch.no_grad():
            whole = host(inputs_embeds=embeds[:, :stop], position_ids=torch.arange(stop).expand(2, -1)).logits[:, -1]
        np.testing.assert_allclose(logits, whole.numpy(), rtol=1e-4, atol=1e-5)

"""Soft prompts: what the LM sees, and that answers go on from it token by token."""

import pytest
import torch
from transformers import DynamicCache

from assembler.adapters.book import adapters_of
from components.adapters.soft_prompt import SoftPrompt
from tests.conformance.hosts import host_of

IDS = torch.tensor([[5, 9, 3, 17], [8, 30, 4, 7]])


@pytest.mark.parametrize("encoder", ["none", "mlp", "lstm"])
def test_the_lm_sees_the_learned_tokens_before_the_prompt(encoder):
    host, plain = host_of("llama"), host_of("llama")
    SoftPrompt(host="host", length=3, encoder=encoder, hidden=5).attach(host, "tune", seed=0)
    (insert,) = adapters_of(host).inserts("tune").values()
    with torch.no_grad():
        tokens = insert.module.encoder(insert.module.table).expand(2, -1, -1)
        both = torch.cat([tokens, plain.get_input_embeddings()(IDS)], 1)
        torch.testing.assert_close(host(input_ids=IDS).logits, plain(inputs_embeds=both).logits[:, 3:])


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_an_answer_read_step_by_step_is_that_of_one_pass(family):
    host = host_of(family)
    SoftPrompt(host="host", length=3).attach(host, "tune", seed=0)
    mask, places = torch.ones_like(IDS), torch.arange(4).expand(2, -1)
    cache = DynamicCache(config=host.config)
    with torch.no_grad():
        whole = host(input_ids=IDS, attention_mask=mask, position_ids=places).logits
        steps = [
            host(
                input_ids=IDS[:, a:b], attention_mask=mask[:, :b], position_ids=places[:, a:b],
                past_key_values=cache, use_cache=True,
            ).logits
            for a, b in ((0, 2), (2, 3), (3, 4))
        ]  # fmt: skip
    torch.testing.assert_close(torch.cat(steps, 1), whole, rtol=1e-5, atol=1e-6)

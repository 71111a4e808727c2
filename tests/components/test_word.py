"""A cloze, answered by a masked language model in its own words."""

import json
from pathlib import Path

import pytest
import torch
from tokenizers import AddedToken, Tokenizer
from torch.nn import functional as F

from assembler.batches import Batches
from assembler.check import check
from assembler.compile import compile_graph
from assembler.errors import AssemblerError
from assembler.evaluate import TorchAnswers, evaluate
from assembler.spec import parse

TOKENIZER = Path(__file__).parents[2] / "components" / "encoders" / "example" / "tokenizer.json"
SPEC = """
assembler: 1
nodes:
  cloze: {type: input.text}
  lm:
    type: encoder.hf_text
    output: word
    freeze: true
    tokenizer: tokenizer.json
    length: 12
    config: {model_type: bert, hidden_size: 16, num_hidden_layers: 1, num_attention_heads: 2, intermediate_size: 16,
      vocab_size: 24, max_position_embeddings: 40}
  say: {type: head.word}
edges: [cloze -> lm, lm -> say]
adapters:
  tune: {type: adapter.prefix_generator, host: lm, length: 3}
data: {type: dataset.jsonl, options: {path: rows.jsonl, columns: {cloze: text, word: text}}, columns: {answer: word}}
stages: [{name: tune, train: [tune], steps: 1}]
"""
ROWS = [{"cloze": "the cat is [MASK]", "word": "red"}, {"cloze": "a [MASK] dog is in the picture", "word": "small"}]


def graph_in(folder: Path):
    tokenizer = Tokenizer.from_file(str(TOKENIZER))
    tokenizer.add_special_tokens([AddedToken("[MASK]", normalized=False, special=True)])
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, ROWS)))
    return check(parse(SPEC, folder / "spec.yaml")).require()


def test_the_loss_is_of_the_answer_at_the_mask_and_the_answer_is_a_word(tmp_path):
    graph = graph_in(tmp_path)
    torch.manual_seed(0)
    assembly = compile_graph(graph).eval()
    batch = Batches(graph)(ROWS)
    assert batch["say_word"].tolist() == [8, 12]
    ids, mask = batch["cloze"], batch["cloze_mask"]
    with torch.no_grad():
        logits = assembly.nodes["lm"].model(input_ids=ids, attention_mask=mask.long()).logits
        there = torch.stack([row[tokens == 23][0] for row, tokens in zip(logits, ids, strict=True)])
        torch.testing.assert_close(
            assembly(**batch)["loss"], F.cross_entropy(there, batch["say_word"]), rtol=1e-5, atol=1e-6
        )
    answers = TorchAnswers(graph, assembly)(ROWS)
    words = graph.parts["say"].collator("say", graph)
    assert [words.token(answer) for answer in answers] == there.argmax(-1).tolist()
    assert evaluate(graph, ["red", "big"], ROWS, ROWS)["exact_match"] == 0.5
    with pytest.raises(AssemblerError, match="'red cat' is 2 tokens of the model; an answer is one"):
        words([{"word": "red cat"}])


def test_the_prompts_that_learn_hear_of_it(tmp_path):
    graph = graph_in(tmp_path)
    assembly = compile_graph(graph)
    assembly.train_only(["tune"])
    assembly.train()(**Batches(graph)(ROWS))["loss"].backward()
    assert all(p.grad is not None and p.grad.any() for p in assembly.parameters() if p.requires_grad)

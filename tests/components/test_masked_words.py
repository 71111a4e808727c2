"""An encoder of text that guesses hidden words, and MixDA's first stage, which learns a domain by that."""

import json
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer
from torch import nn

from assembler.adapters.book import adapters_of
from assembler.compile import compile_graph
from assembler.errors import AssemblerError
from assembler.ragged import Ragged
from components.adapters.domain_adapter import DomainAdapter
from components.adapters.mixda import Mixda
from components.encoders._masked_words import IGNORED, Guess
from components.encoders.hf_text import HfText
from tests.conformance.test_matrix import graph_of

TOKENIZER = Path(__file__).parents[2] / "components" / "encoders" / "example" / "tokenizer.json"
MASK = 23


def words(*pieces: str) -> Tokenizer:
    told = json.loads(TOKENIZER.read_text())
    told["model"]["vocab"] = {token: i for i, token in enumerate(["[UNK]", "[MASK]", "[CLS]", *pieces])}
    told["post_processor"] = None
    return Tokenizer.from_str(json.dumps(told))


def test_three_in_twenty_tokens_are_hidden_and_none_that_is_special_or_padding():
    torch.manual_seed(0)
    guess = Guess.of(Tokenizer.from_file(str(TOKENIZER)), "it", 0.15, False)
    ids = torch.randint(4, 23, (64, 100))
    ids[:, 0], mask = 2, torch.ones(64, 100, dtype=torch.bool)
    mask[:, 80:] = False
    read, wanted = guess(ids, mask)
    hidden = wanted != IGNORED
    assert not hidden[:, 0].any() and not hidden[:, 80:].any()
    assert hidden[:, 1:80].float().mean() == pytest.approx(0.15, abs=0.02)
    assert torch.equal(wanted[hidden], ids[hidden]) and torch.equal(read[~hidden], ids[~hidden])
    assert (read[hidden] == MASK).float().mean() == pytest.approx(0.8, abs=0.05)
    assert (read[hidden] == ids[hidden]).float().mean() == pytest.approx(0.1, abs=0.04)


@pytest.mark.parametrize("pieces", [["un", "##do", "##ing", "it"], ["\u2581un", "do", "ing", "\u2581it"]])
def test_the_pieces_of_a_word_are_hidden_together(pieces):
    torch.manual_seed(0)
    guess = Guess.of(words(*pieces), "it", 0.3, True)
    ids = torch.tensor([[2, 3, 4, 5, 6, 3, 5]]).expand(400, -1)  # [CLS] un do ing it un ing
    hidden = guess(ids, torch.ones_like(ids, dtype=torch.bool))[1] != IGNORED
    for word in ([1, 2, 3], [5, 6]):
        assert (hidden[:, word] == hidden[:, word[:1]]).all()
    assert hidden[:, [1, 4, 5]].float().mean() == pytest.approx(0.3, abs=0.05)
    assert (hidden[:, 1] != hidden[:, 5]).any()


def test_a_tokenizer_without_a_token_for_it_is_refused():
    told = words("a")
    bare = Tokenizer.from_str(told.to_str().replace("[MASK]", "[HIDE]"))
    with pytest.raises(AssemblerError, match=r"it has no token \[MASK\]"):
        Guess.of(bare, "it", 0.15, False)


@pytest.fixture
def tower() -> nn.Module:
    tree = next(tree for tree, _ in HfText.examples() if tree["nodes"]["part"].get("pretrain"))
    tree["nodes"]["part"] |= {"whole_words": False, "hide": 0.3}
    tree["nodes"]["part"]["config"] |= {
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "initializer_range": 0.3,
    }
    return compile_graph(graph_of(tree)).nodes["part"]


def sentences(low: int, count: int = 16) -> Ragged:
    """One word over and over, of seven from `low` on, after [CLS]."""
    ids = torch.cat([torch.full((count, 1), 2), (low + torch.randint(7, (count, 1))).expand(-1, 8)], 1)
    return Ragged(ids, torch.ones_like(ids, dtype=torch.bool))


def guessed(tower: nn.Module, text: Ragged) -> torch.Tensor:
    """The loss of hidden words."""
    tower.train().asked = True
    tower(text)
    tower.asked = False
    return tower.auxiliary_loss


def learn(tower: nn.Module, parameters: list, steps: int, low: int, old: list) -> None:
    """Learn the words from `low` on, and with `old` modules keep what they gave for the first words."""
    optimizer = torch.optim.Adam(parameters, lr=0.02)
    for _ in range(steps):
        loss = guessed(tower, sentences(low))
        if old:
            tower(sentences(4))
            loss = loss + torch.stack([module.auxiliary_loss for module in old]).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


@torch.no_grad()
def loss_of(tower: nn.Module, low: int) -> float:
    torch.manual_seed(7)
    return sum(guessed(tower, sentences(low, 64)).item() for _ in range(4)) / 4


def test_it_reads_all_words_unless_a_stage_asks_for_guesses_and_the_first_stage_of_mixda_keeps_what_was_known(tower):
    torch.manual_seed(0)
    learn(tower, list(tower.parameters()), 150, 4, [])
    text = sentences(4)
    with torch.no_grad():
        plain = tower.model.bert(input_ids=text.values, attention_mask=text.mask.long()).last_hidden_state
        assert torch.equal(tower(text).values, plain) and tower.for_loss()
    known = loss_of(tower, 4)
    new = loss_of(tower, 13)
    assert known < 1.0 < new
    tower.requires_grad_(False)
    lost = {}
    for preserve in (0.0, 1.0):
        DomainAdapter(host="h", reduction=2).attach(tower, "medical", seed=0)
        part = Mixda(host="h", inner=8, dropout=0, reads="token", preserve=preserve)
        part.attach(tower, "gate", 0, composition="fuse(medical, by=gate)")
        book = adapters_of(tower)
        book.activate("fuse(medical, by=gate)")
        gates = [insert.module for insert in book.inserts("gate").values()]
        mine = [p.requires_grad_(True) for p in book.modules.parameters()]
        learn(tower, mine, 100, 13, gates if preserve else [])
        lost[preserve] = (loss_of(tower, 4) / known, loss_of(tower, 13))
        book.activate("")
        for name in ("gate", "medical"):
            book.remove(name)
    assert max(lost[1.0][1], lost[0.0][1]) < 0.75 * new  # the new words are learned
    assert lost[1.0][0] < lost[0.0][0] / 2


def test_words_are_hidden_in_the_rows_of_the_domain_alone(tower):
    seen = []
    tower.guess.register_forward_hook(lambda module, given, out: seen.append(out[1] != IGNORED))
    tower.train().asked = True
    tower(torch.arange(16) % 2 == 0, sentences(4))
    assert seen[0][::2].any() and not seen[0][1::2].any()
    part = HfText(pretrain=True, domain="new", tokenizer="x", config={"model_type": "bert"})
    assert part.columns("read", ()) == {"new": "label"} and part.extras == part.targets == ("domain",)
    with pytest.raises(ValueError, match="add `pretrain: true`"):
        HfText(domain="new", tokenizer="x", config={"model_type": "bert"})

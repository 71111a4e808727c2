"""P-Adapters: an LSTM on the embeddings of a prompt, before a frozen model of masked words."""

import pytest
import torch
import transformers as tf
from torch import nn

from assembler.adapters.book import adapters_of
from components.adapters._p_adapters import BothWays
from components.adapters.embedding_rewrite import EmbeddingRewrite
from components.adapters.prefix_generator import PrefixGenerator
from components.adapters.prompt_selector import PromptSelector
from tests.conformance.hosts import DRY, HOSTS, TEXT, host_of


@torch.no_grad()
def test_the_lstm_is_torchs_own_where_all_is_real_and_padding_anywhere_is_not_read():
    torch.manual_seed(0)
    ours, theirs = BothWays(6), nn.LSTM(6, 3, 2, batch_first=True, bidirectional=True)
    for i in range(2):
        for ends, suffix in ((ours.onward, ""), (ours.back, "_reverse")):
            for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
                getattr(ends[i], f"{kind}_l0").copy_(getattr(theirs, f"{kind}_l{i}{suffix}"))
    x = torch.randn(3, 5, 6)
    torch.testing.assert_close(ours(x, None), theirs(x)[0])
    mask = torch.tensor([[1, 1, 1, 0, 0], [0, 0, 1, 1, 1], [1, 0, 1, 0, 1]]).bool()
    found = ours(x, mask)
    for row in range(3):
        torch.testing.assert_close(found[row, mask[row]], theirs(x[row, mask[row]].unsqueeze(0))[0][0])


@torch.no_grad()
def test_what_is_kept_goes_in_as_it_is():
    host, seen = host_of("bert"), []
    EmbeddingRewrite(host="host", keep=[8]).attach(host, "tune", seed=0)
    host.embeddings.LayerNorm.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    batch = HOSTS["bert"].batch
    host(**batch)
    bare = host_of("bert")
    bare.embeddings.LayerNorm.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    bare(**batch)
    same = (seen[0] == seen[1]).all(-1)
    assert torch.equal(same, batch["input_ids"] == 8)


@torch.no_grad()
def test_the_host_answers_for_the_prompts_own_tokens_in_all_its_states():
    host, batch = host_of("bert"), HOSTS["bert"].batch
    PrefixGenerator(host="host", length=3).attach(host, "tune", seed=0)
    found = host(**batch, output_hidden_states=True)
    assert {x.shape for x in [found.last_hidden_state, *found.hidden_states]} == {(2, 5, 16)}


@torch.no_grad()
def test_nine_tokens_stand_around_the_subject_and_the_mask_of_each_row():
    host, seen = host_of("bert"), []
    part = PrefixGenerator(host="host", length=9, around=4)
    part.attach(host, "tune", seed=0)
    ids = torch.tensor([[1, 20, 21, 30, 4, 2], [1, 30, 22, 31, 4, 2]])  # the subjects are 20 21, and 22
    wires = adapters_of(host).wires("tune")
    wires["first"].lay(torch.tensor([1, 2]))
    wires["last"].lay(torch.tensor([2, 2]))
    host.embeddings.register_forward_pre_hook(lambda m, a, k: seen.append(k["inputs_embeds"]), with_kwargs=True)
    module = next(iter(adapters_of(host).inserts("tune").values())).module
    words = host.embeddings.word_embeddings(ids)
    made = module.made(words, None)
    states = host(input_ids=ids).last_hidden_state
    assert states.shape[1] == 6
    for row, order in enumerate(["C***SS***rM***E", "Cr***S***oM***E"]):
        assert len(order) == 15
        own = [i for i, x in enumerate(order) if x != "*"]
        new = [i for i, x in enumerate(order) if x == "*"]
        assert torch.equal(seen[0][row, own], words[row]) and torch.equal(seen[0][row, new], made[row])
    wires["first"].lay(torch.tensor([-1, -1]))
    host(input_ids=ids)
    assert torch.equal(seen[1][0, [0, 4, 5, 6, 10, 14]], words[0])  # all between the first token and [MASK]


def test_the_subject_is_not_rewritten_where_columns_tell_it():
    host, seen, batch = host_of("bert"), [], HOSTS["bert"].batch
    EmbeddingRewrite(host="host").attach(host, "tune", seed=0)
    for wire, numbers in (("first", [1, -1]), ("last", [2, -1])):
        adapters_of(host).wires("tune")[wire].lay(torch.tensor(numbers))
    host.embeddings.LayerNorm.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    host(**batch)
    bare = host_of("bert")
    bare.embeddings.LayerNorm.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    bare(**batch)
    assert (seen[0] == seen[1]).all(-1).tolist() == [[False, True, True, False, False], [False] * 5]


def test_each_relation_has_its_prompt_and_the_classifier_learns_to_pick_it():
    host = host_of("bert").requires_grad_(False)
    mine = PromptSelector(host="h", relations=2, length=2).attach(host, "tune", seed=0)
    book = adapters_of(host)
    relation, module = book.wires("tune")["relation"], next(iter(book.inserts("tune").values())).module
    subjects = torch.arange(10, 16)
    asked = [torch.stack([torch.full((6,), 20 + r), subjects, torch.full((6,), 4)], 1) for r in (0, 1)]
    ids, told = torch.cat(asked), torch.tensor([0] * 6 + [1] * 6)
    optimizer = torch.optim.Adam([host.get_parameter(key).requires_grad_(True) for key in mine], lr=0.1)
    module.train()
    for _ in range(40):
        relation.lay(told)
        host(input_ids=ids)
        module.auxiliary_loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    relation.lay(torch.tensor([1]))
    host(input_ids=ids).last_hidden_state.sum().backward()
    assert module.prompts.grad[1].any() and not module.prompts.grad[0].any()  # each learns from its own relation
    module.eval()  # where what is told counts no more
    made = module.made(host.embeddings.word_embeddings(ids), None)
    torch.testing.assert_close(made, module.prompts[told])


SUBJECTS = range(10, 17)


@pytest.mark.parametrize(
    "part", [EmbeddingRewrite(host="h", keep=[4, *SUBJECTS]), PrefixGenerator(host="h", length=3)], ids=lambda p: p.type
)
def test_a_fact_is_answered_in_words_that_neither_the_model_nor_the_adapter_learned(part):
    """Seven subjects; the model knows template 0, the adapter learns by 0 to 2, and 3 is held out; [MASK], 4, ends."""
    torch.manual_seed(0)
    host = tf.BertForMaskedLM(tf.BertConfig(**{**TEXT, **DRY})).eval()
    subjects, objects = torch.tensor(SUBJECTS), torch.arange(20, 27)

    def prompts(template: int) -> torch.Tensor:
        words = torch.tensor([30 + template, 34 + template]).expand(7, -1)
        order = [words[:, :1], subjects[:, None], words[:, 1:]] if template % 2 else [words, subjects[:, None]]
        return torch.cat([*order, torch.full((7, 1), 4)], 1)

    def learn(parameters: list, ids: torch.Tensor, lr: float, steps: int) -> None:
        optimizer = torch.optim.Adam(parameters, lr=lr)
        for _ in range(steps):
            optimizer.zero_grad()
            logits = host(input_ids=ids).logits[:, -1]
            nn.functional.cross_entropy(logits, objects.repeat(len(ids) // 7)).backward()
            optimizer.step()

    def right() -> float:
        with torch.no_grad():
            return (host(input_ids=prompts(3)).logits[:, -1].argmax(-1) == objects).float().mean().item()

    learn(list(host.parameters()), prompts(0), 0.01, 150)
    assert right() < 0.3
    frozen = {key: p.requires_grad_(False).clone() for key, p in host.named_parameters()}
    mine = [host.get_parameter(key) for key in part.attach(host, "tune", seed=0)]
    learn(mine, torch.cat([prompts(i) for i in (0, 1, 2)]), 0.005, 100)
    assert right() > 0.8
    assert all(torch.equal(p, frozen[key]) for key, p in host.named_parameters() if key in frozen)

"""Two LoRAs in one stack: a domain's and a task's over it."""

from pathlib import Path

import torch
import transformers as tf
from torch.nn import functional as F

from assembler.adapters.book import adapters_of
from assembler.adapters.files import save_adapter
from assembler.check import check
from assembler.compile import compile_graph
from assembler.ragged import Ragged
from assembler.spec import Document, Spec
from components.adapters._examples import on_llama
from components.adapters.lora import Lora
from components.heads.multi_label import MultiLabel

TOKENIZER = Path(__file__).parents[2] / "components" / "encoders" / "example" / "tokenizer.json"


def assembled(stacked: bool = True):
    tree, _ = on_llama("adapter.lora", None)
    part = tree["adapters"].pop("part")
    tree["adapters"] = {"domain": {**part, "rank": 4}, **({"task": {**part, "rank": 2}} if stacked else {})}
    tree = {"assembler": 1, **tree}
    return compile_graph(check(Spec(Path("x.yaml").resolve(), Document.model_validate(tree), tree)))


def batch(seed: int = 0) -> dict[str, torch.Tensor]:
    ids = torch.randint(3, 250, (4, 9), generator=torch.Generator().manual_seed(seed))
    return {"talk_input_ids": ids, "talk_attention_mask": torch.ones_like(ids), "talk_labels": ids[:, -6:]}


def stir(assembly, name):
    with torch.no_grad():
        for key in assembly.of(name):
            assembly.get_parameter(key).normal_(std=0.1)


def test_a_task_adapter_that_is_new_leaves_a_trained_domain_adapter_as_it_answers():
    alone, both = assembled(stacked=False), assembled()
    stir(alone, "domain")
    with torch.no_grad():
        for key in alone.of("domain"):
            both.get_parameter(key).copy_(alone.get_parameter(key))
        assert torch.equal(alone(**batch())["logits"], both(**batch())["logits"])


def test_the_domain_is_learned_first_and_both_receive_gradients_when_both_are_declared():
    assembly = assembled()
    assembly.train_only(["domain"])
    optimizer = torch.optim.Adam([p for p in assembly.parameters() if p.requires_grad], lr=3e-2)
    losses = []
    for _ in range(25):
        optimizer.zero_grad()
        loss = assembly(**batch())["loss"]
        loss.backward()
        losses.append(loss.item())
        optimizer.step()
    assert losses[-1] < losses[0] - 0.15
    assert all(assembly.get_parameter(key).grad is None for key in assembly.of("task"))
    assembly.train_only(["domain", "task"])
    stir(assembly, "task")
    assembly(**batch())["loss"].backward()
    assert all(assembly.get_parameter(key).grad.any() for name in ("domain", "task") for key in assembly.of(name))


def test_merged_one_after_the_other_both_stay_in_the_weights():
    from assembler.adapters.book import adapters_of

    assembly = assembled()
    stir(assembly, "domain")
    stir(assembly, "task")
    with torch.no_grad():
        before = assembly(**batch())["logits"]
        for name in ("domain", "task"):
            adapters_of(assembly.nodes["talk"]).merge(name)
        torch.testing.assert_close(assembly(**batch())["logits"], before, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_what_an_llm_has_learned_of_a_domain_serves_a_head_on_its_last_token(tmp_path):
    config = {"vocab_size": 24, "hidden_size": 32, "intermediate_size": 16, "num_hidden_layers": 2}
    config |= {"num_attention_heads": 4, "num_key_value_heads": 2}
    lm = tf.LlamaForCausalLM(tf.LlamaConfig(**config))
    new = Lora(host="talk", rank=2).attach(lm, "domain", seed=0)
    for key in new:
        lm.get_parameter(key).normal_(std=0.3)
    save_adapter(lm, "domain", tmp_path / "domain")
    adapters_of(lm).activate("domain")
    nodes = {"note": {"type": "input.text"}, "what": {"type": "head.multi_label", "labels": ["ill", "old"]}}
    nodes["read"] = {"type": "encoder.hf_text", "output": "pooled", "pool": "last", "tokenizer": str(TOKENIZER)}
    nodes["read"]["config"] = {"model_type": "llama", **config}
    domain = {"type": "adapter.lora", "host": "read", "rank": 2, "weights": f"file:{tmp_path}/domain"}
    tree = {"assembler": 1, "nodes": nodes, "edges": ["note -> read", "read -> what"], "adapters": {"domain": domain}}
    assembly = compile_graph(check(Spec(Path("x.yaml").resolve(), Document.model_validate(tree), tree))).eval()
    tower = assembly.nodes["read"]
    assert not tower.model.load_state_dict(lm.model.state_dict(), strict=False).unexpected_keys
    ids = torch.tensor([[4, 5, 6, 7], [8, 9, 0, 0]])
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]]).bool()
    states = lm(input_ids=ids, output_hidden_states=True).hidden_states[-1]
    last = tower(Ragged(ids, mask))
    torch.testing.assert_close(last, torch.stack([states[0, 3], states[1, 1]]), rtol=1e-4, atol=1e-5)
    labels = torch.tensor([[1.0, 0.0], [1.0, 1.0]])
    found = assembly(note=ids, note_mask=mask, what_labels=labels)
    wanted = F.binary_cross_entropy_with_logits(assembly.nodes["what"].linear(last), labels)
    torch.testing.assert_close(found["loss"], wanted)
    answered = MultiLabel(labels=("ill", "old")).answer(found)
    assert answered == [[int(x > 0) for x in row] for row in found["logits"].tolist()]

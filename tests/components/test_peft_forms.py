"""The methods that PEFT has: its files load here and ours load there, and both compute the same."""

import json
from typing import Any

import peft
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from assembler.adapters.book import adapters_of
from assembler.adapters.files import load_adapter, save_adapter
from assembler.errors import AssemblerError
from components.adapters.ia3 import Ia3
from components.adapters.llama_adapter import LlamaAdapter
from components.adapters.lora import Lora
from components.adapters.prefix import Prefix
from components.adapters.shira import Shira
from components.adapters.soft_prompt import SoftPrompt
from tests.conformance.hosts import HOSTS, host_of

QV = ["q_proj", "v_proj"]
LM: dict[str, Any] = {"task_type": "CAUSAL_LM"}
CONFIGS = {
    "lora": ("llama", peft.LoraConfig(r=2, lora_alpha=6, target_modules=QV)),
    "rslora": ("llama", peft.LoraConfig(r=2, lora_alpha=6, target_modules=QV, use_rslora=True)),
    "dora": ("llama", peft.LoraConfig(r=2, target_modules=QV, use_dora=True)),
    "lora of one layer": ("llama", peft.LoraConfig(r=2, target_modules=["o_proj"], layers_to_transform=[1])),
    "lora of an embedding": ("llama", peft.LoraConfig(r=2, target_modules=["embed_tokens", "down_proj"])),
    "lora of Conv1D": ("gpt2", peft.LoraConfig(r=2, target_modules=["c_attn", "c_fc"], fan_in_fan_out=True)),
    "lora of a convolution": ("vit", peft.LoraConfig(r=2, target_modules=["projection"])),
    "shira": ("llama", peft.ShiraConfig(r=2, random_seed=7, target_modules=QV)),
    "ia3": ("llama", peft.IA3Config(target_modules=["k_proj", "down_proj"], feedforward_modules=["down_proj"], **LM)),
    "adaption prompt": ("llama", peft.AdaptionPromptConfig(adapter_len=3, adapter_layers=1, **LM)),
    "prompt": ("llama", peft.PromptTuningConfig(num_virtual_tokens=3, **LM)),
    "prefix": ("llama", peft.PrefixTuningConfig(num_virtual_tokens=3, **LM)),
}
OURS = {
    "lora": ("llama", Lora(host="h", rank=2, alpha=6, sites="layers.*.attn.{q,v}")),
    "dora": ("llama", Lora(host="h", rank=2, dora=True)),
    "embedding": ("llama", Lora(host="h", rank=2, sites="embed")),
    "Conv1D": ("gpt2", Lora(host="h", rank=2, sites="layers.*.attn.qkv", layers=[-1])),
    "shira": ("llama", Shira(host="h", rank=2, sites="layers.*.attn.{q,v}", mask="magnitude")),
    "ia3": ("llama", Ia3(host="h")),
    "adaption prompt": ("llama", LlamaAdapter(host="h", length=3, gates="layer", squash=False)),
    "prompt": ("llama", SoftPrompt(host="h", length=3)),
    "prefix": ("llama", Prefix(host="h", length=3)),
}


@torch.no_grad()
def stirred(parameters) -> None:
    generator = torch.Generator().manual_seed(1)
    for parameter in parameters:
        parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))


def shown(family: str, host: nn.Module, offset: int = 0) -> torch.Tensor:
    """The output; a prefix in PEFT moves the positions of the words, which then are `offset` further on."""
    batch = HOSTS[family].batch
    if offset:
        ids = batch["input_ids"]
        batch = {**batch, "position_ids": torch.arange(offset, offset + ids.shape[1]).expand_as(ids)}
    with torch.no_grad():
        out = HOSTS[family].out(host(**batch))
    return out[:, -batch["input_ids"].shape[1] :] if "input_ids" in batch else out  # PEFT keeps its prompt's logits


@pytest.mark.parametrize("case", CONFIGS)
def test_a_file_of_pefts_loads_here_and_computes_the_same(case, tmp_path):
    family, config = CONFIGS[case]
    theirs = peft.get_peft_model(host_of(family), config).eval()
    stirred([p for p in theirs.parameters() if p.requires_grad])
    theirs.save_pretrained(tmp_path / "file")
    host = host_of(family)
    load_adapter(host, tmp_path / "file", "tune")
    offset = 3 if case == "prefix" else 0
    torch.testing.assert_close(shown(family, host, offset), shown(family, theirs), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("case", OURS)
def test_a_file_of_ours_loads_into_peft_and_computes_the_same(case, tmp_path):
    family, part = OURS[case]
    host = host_of(family)
    new = part.attach(host, "tune", seed=1)
    stirred([p for key, p in host.named_parameters() if key in new])
    save_adapter(host, "tune", tmp_path / "file")
    theirs = peft.PeftModel.from_pretrained(host_of(family), str(tmp_path / "file")).eval()
    offset = 3 if case == "prefix" else 0
    torch.testing.assert_close(shown(family, theirs), shown(family, host, offset), rtol=1e-5, atol=1e-5)


def test_a_slice_of_a_fused_projection_is_kept_in_our_own_names(tmp_path):
    host = host_of("gpt2")
    Lora(host="h", rank=2, sites="layers.*.attn.{q,v}").attach(host, "tune", seed=1)
    stirred(adapters_of(host).modules.parameters())
    save_adapter(host, "tune", tmp_path / "file")
    assert json.loads((tmp_path / "file" / "adapter_config.json").read_text())["part"] == "adapter.lora"
    other = host_of("gpt2")
    load_adapter(other, tmp_path / "file", "tune")
    assert torch.equal(shown("gpt2", other), shown("gpt2", host))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"rank_pattern": {"q_proj": 4}}, "`rank_pattern` is not taken here"),
        ({"peft_type": "VERA"}, "no part takes PEFT's 'VERA'"),
        ({"r": 4}, "and this host takes"),
        ({"r": "many"}, "rank:"),
    ],
)
def test_a_config_that_asks_for_something_else_is_refused(change, said, tmp_path):
    theirs = peft.get_peft_model(host_of("llama"), CONFIGS["lora"][1])
    theirs.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    (tmp_path / "adapter_config.json").write_text(json.dumps({**config, **change}))
    host = host_of("llama")
    with pytest.raises(AssemblerError, match=said):
        load_adapter(host, tmp_path, "tune")
    assert adapters_of(host) is None


def test_a_file_for_another_host_names_what_does_not_fit(tmp_path):
    theirs = peft.get_peft_model(host_of("llama"), CONFIGS["lora"][1])
    theirs.save_pretrained(tmp_path)
    assert load_file(tmp_path / "adapter_model.safetensors")
    with pytest.raises(AssemblerError, match=r"q_proj, which is no site of BertModel"):
        load_adapter(host_of("bert"), tmp_path, "tune")

"""The module of `backbone.causal_lm`, its batches, and how its weights and tokenizer are read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from assembler.batches import left_padded
from assembler.bundle.prompt import prompt_ids, segments
from assembler.caching import cache_argument
from assembler.configs import check_heads
from assembler.errors import AssemblerError, told
from assembler.ragged import Ragged, parted, unread
from assembler.template import ANSWER, Prompt

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

    from assembler.graph import Graph

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
IGNORED = -100
REFUSED = {
    "rwkv": "it does not look at the attention mask, so that the padding of a batch would change its answers",
    "jamba": "transformers cannot continue its cache step by step from embeddings",
}
"""Model types of transformers that would be wrong here without a word, or fail late."""


class PromptedLM(nn.Module):
    """A causal LM whose prompt holds rows of other nodes' tokens: id V + r stands for row r of all features."""

    def __init__(self, lm: PreTrainedModel) -> None:
        super().__init__()
        self.lm = lm

    def embed(self, input_ids: Tensor, features: Sequence[Tensor]) -> Tensor:
        """input_ids [B, T] and features, each [B, t, D] -> inputs_embeds [B, T, D]."""
        table: Any = self.lm.get_input_embeddings()
        if not features:
            return table(input_ids)
        vocabulary = table.weight.shape[0]
        words = table(input_ids.clamp(max=vocabulary - 1))  # [B, T, D]
        rows = torch.cat([x.flatten(0, 1) for x in features]).to(words.dtype)  # [N, D]
        own = rows[(input_ids - vocabulary).clamp(min=0)]  # [B, T, D]
        return torch.where((input_ids < vocabulary).unsqueeze(-1), words, own)

    def joined(
        self, input_ids: Tensor, attention_mask: Tensor, features: Sequence[Tensor | Ragged]
    ) -> tuple[Tensor, Tensor]:
        """inputs_embeds [B, T', D] and attention_mask [B, T'], both with all that is real at the right end.

        The padding of ragged features falls away as if it had never been in the prompt: what is real moves together,
        in its order, so that any LM, a recurrent one too, sees no hole. T' is the most that is real in one row; in a
        compiled graph and in a forecast it is T.
        """
        parts = [parted(x) for x in features]
        embeds = self.embed(input_ids, [values for values, _ in parts])
        if all(mask is None for _, mask in parts):
            return embeds, attention_mask
        table: Any = self.lm.get_input_embeddings()
        vocabulary = table.weight.shape[0]
        real = [values.new_ones(values.shape[:2], dtype=torch.bool) if m is None else m for values, m in parts]
        rows = torch.cat([x.flatten() for x in real])  # [N]
        keep = (attention_mask > 0) & ((input_ids < vocabulary) | rows[(input_ids - vocabulary).clamp(min=0)])  # [B, T]
        place = torch.arange(keep.shape[1], device=keep.device)
        order = (keep * keep.shape[1] + place).argsort(1)  # [B, T], keys are unique
        if not unread(embeds):
            order = order[:, -max(1, int(keep.sum(1).max())) :]  # [B, T']
        embeds = embeds.gather(1, order.unsqueeze(-1).expand(-1, -1, embeds.shape[-1]))
        return embeds, keep.gather(1, order).to(attention_mask.dtype)

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, labels: Tensor, *features: Tensor | Ragged
    ) -> dict[str, Tensor]:
        """labels [B, A] are those of the last A positions; the logits [B, A, V] are the ones that predict them."""
        logits = self.logits(input_ids, attention_mask, features, labels.shape[1] + 1)[:, :-1]  # [B, A, V]
        loss = F.cross_entropy(logits.flatten(0, 1).float(), labels.flatten(), ignore_index=IGNORED)
        return {"loss": loss, "logits": logits}

    def logits(
        self, input_ids: Tensor, attention_mask: Tensor, features: Sequence[Tensor | Ragged], last: int
    ) -> Tensor:
        """Logits [B, last, V] of the last positions."""
        embeds, mask = self.joined(input_ids, attention_mask, features)
        out = self.lm(
            inputs_embeds=embeds,  # [B, T, D]
            attention_mask=mask,  # [B, T], padded on the left
            position_ids=positions(mask),  # [B, T]
            use_cache=False,
            logits_to_keep=last,
        )
        return out.logits

    @torch.no_grad()
    def cached(
        self, input_ids: Tensor, attention_mask: Tensor, features: Sequence[Tensor | Ragged]
    ) -> tuple[list[tuple[Tensor, Tensor]], Tensor]:
        """Keys and values [B, kv heads, T, head size] of every layer, and the mask [B, T] of what is real."""
        from transformers import DynamicCache

        embeds, mask = self.joined(input_ids, attention_mask, features)
        cache = DynamicCache()
        known = cache_argument(self.lm, cache)
        self.lm(inputs_embeds=embeds, attention_mask=mask, position_ids=positions(mask), **known, logits_to_keep=1)
        layers: list[Any] = cache.layers
        return [(layer.keys, layer.values) for layer in layers], mask

    def generate_ids(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        features: Sequence[Tensor | Ragged],
        limit: int,
        stop: Sequence[int],
        tell: Callable[[list[list[int]]], None] = lambda answers: None,
    ) -> list[list[int]]:
        """The greedy answer's ids of every row, up to and without the first stop id; `tell` hears them as they grow."""
        from transformers import DynamicCache

        embeds, mask = self.joined(input_ids, attention_mask, features)
        place = positions(mask)
        answers: list[list[int]] = [[] for _ in input_ids]
        going, cache = torch.ones(len(input_ids), dtype=torch.bool), DynamicCache(config=self.lm.config)
        for _ in range(limit):
            out = self.lm(
                inputs_embeds=embeds,
                attention_mask=mask,
                position_ids=place,
                **cache_argument(self.lm, cache),
                use_cache=True,
                logits_to_keep=1,
            )
            token = out.logits[:, -1].argmax(-1)  # [B]
            going &= ~torch.isin(token, torch.tensor(list(stop), device=token.device)).cpu()
            for row in going.nonzero().flatten().tolist():
                answers[row].append(int(token[row]))
            tell(answers)
            if not going.any():
                break
            embeds = self.lm.get_input_embeddings()(token[:, None])
            mask, place = F.pad(mask, (0, 1), value=1), place[:, -1:] + 1
        return answers


def positions(attention_mask: Tensor) -> Tensor:
    """Positions that count from 0 at the first token that is not padding: [B, T]."""
    return (attention_mask.cumsum(1) - 1).clamp(min=0)


class PromptCollator:
    """Data rows -> input_ids [B, T], attention_mask [B, T] and labels [B, A], padded on the left."""

    def __init__(self, node: str, graph: Graph, tokenizer: PreTrainedTokenizerFast, prompt: Prompt) -> None:
        self.node, self.prompt, self.tokenizer = node, prompt, tokenizer
        self.vocabulary = graph.vocabulary(node)
        self.slots = graph.slot_tokens(node)
        self.columns = graph.text_columns(node)
        self.answer = graph.column(ANSWER)
        self.end = prompt.stop[0] if prompt.stop else None

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Tensor]:
        prompts = self.prompts(rows)
        answers = [self.answer_ids(row[self.answer]) for row in rows]
        ids, mask = left_padded([p + a for p, a in zip(prompts, answers, strict=True)])
        longest = max(map(len, answers))
        labels = torch.tensor([[IGNORED] * (longest - len(a)) + a for a in answers])
        return {"input_ids": ids, "attention_mask": mask, "labels": labels}

    def prompts(self, rows: Sequence[dict[str, Any]]) -> list[list[int]]:
        """Ids of each row's prompt; the wired slot s of row i takes the ids of its rows in the batch's features."""
        first, start = {}, self.vocabulary
        for slot, tokens in self.slots.items():
            first[slot] = start
            start += tokens * len(rows)
        found = []
        for i, row in enumerate(rows):
            sample = {slot: row[column] for slot, column in self.columns.items()}
            own = {s: range(first[s] + i * n, first[s] + (i + 1) * n) for s, n in self.slots.items()}
            begin = [] if self.prompt.bos is None else [self.prompt.bos]
            found.append(begin + prompt_ids(segments(self.prompt.parts, sample), own, self.tokenize))
        return found

    def answer_ids(self, answer: str) -> list[int]:
        """Ids of an answer with its end token."""
        ids = self.tokenize(self.prompt.lead + answer)
        return ids if self.end is None else [*ids, self.end]

    def text(self, ids: Sequence[int]) -> str:
        """An answer in words, without special tokens and the space that sets it off from its prompt."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True)).removeprefix(" ")

    def tokenize(self, text: str) -> list[int]:
        return self.tokenizer.backend_tokenizer.encode(text, add_special_tokens=False).ids


def from_config(arch: str, config: dict[str, Any], dtype: str) -> PreTrainedModel:
    """A freshly initialised causal LM of transformers.

    Raises:
        AssemblerError: transformers knows no such architecture, its config refuses the values, or its heads do not
            divide.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    if arch in REFUSED:
        raise AssemblerError(f"the architecture {arch} is not taken: {REFUSED[arch]}; choose another LM")
    knobs = {key: item for key, item in config.items() if key not in ("model_type", "architectures", "auto_map")}
    with told(f"transformers cannot make a causal LM `{arch}` of this config"):
        known = AutoConfig.for_model(arch, **knobs)
        check_heads(known)
        return AutoModelForCausalLM.from_config(known, dtype=DTYPES[dtype])


def load_lm(module: PromptedLM, path: Path, dtype: str) -> None:
    """Put the weights at `path`, a GGUF file or a folder of safetensors, into the module."""
    if path.suffix == ".gguf":
        from assembler import gguf

        state = gguf.load_state(path, DTYPES[dtype])
        with told(f"{path} does not fit its own config"):
            module.lm.load_state_dict(_with_head(state, module.lm), assign=True)
        module.lm.tie_weights()
        return
    from transformers import AutoModelForCausalLM

    with told(f"{path} is no causal LM that transformers can load"):
        found: Any = AutoModelForCausalLM.from_pretrained(
            path,
            dtype=DTYPES[dtype],
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    module.lm, report = found
    lacking = sorted(report["missing_keys"])
    if lacking:  # transformers would draw it at random and warn
        raise AssemblerError(f"{path} lacks {lacking[0]}, which its config asks for; bring the whole model")


def _with_head(state: dict[str, Tensor], lm: PreTrainedModel) -> dict[str, Tensor]:
    if "lm_head.weight" in lm.state_dict() and "lm_head.weight" not in state:
        return {**state, "lm_head.weight": state["model.embed_tokens.weight"]}
    return state


def tokenizer_of(path: Path) -> PreTrainedTokenizerFast:
    """The tokenizer in a GGUF file or a folder."""
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    if path.suffix == ".gguf":
        from assembler import gguf

        return gguf.load_tokenizer(path)
    with told(f"{path} holds no tokenizer that can be read"):
        tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True, trust_remote_code=False)
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise AssemblerError(f"{path} has a slow tokenizer; put its tokenizer.json beside it")
    return tokenizer


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """UTF-8 bytes as ids 3 to 258, after <pad> 0, <bos> 1 and <eos> 2: for LMs that start from nothing."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    special = ["<pad>", "<bos>", "<eos>"]
    names = special + sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({name: index for index, name in enumerate(names)}, []))
    tokenizer.add_special_tokens([AddedToken(name, normalized=False, special=True) for name in special])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<bos>", eos_token="<eos>")

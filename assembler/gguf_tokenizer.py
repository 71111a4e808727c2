"""The byte-level BPE tokenizer in a GGUF file's metadata, by itself or as transformers' fast tokenizer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from assembler.errors import AssemblerError, told

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    from assembler.gguf import Header

CONTROL, USER_DEFINED = 3, 4

_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_SPLITS = {
    "llama-bpe": rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1,3}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+",
    "qwen2": rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+",
}
PRETOKENIZERS = ("default", "gpt-2", "llama-bpe", "qwen2", "smollm")


@dataclass(frozen=True)
class Words:
    """A tokenizer with its special tokens and its chat template, as far as a prompt is made with it.

    Attributes:
        special: the texts of the special tokens that the file names, by `bos_token` and the like.
    """

    backend_tokenizer: "Tokenizer"
    special: Mapping[str, str]
    chat_template: str | None

    @property
    def eos_token_id(self) -> int | None:
        """The token that ends an answer."""
        return self._id("eos_token")

    @property
    def bos_token_id(self) -> int | None:
        """The token that begins a text."""
        return self._id("bos_token")

    def encode(self, text: str) -> list[int]:
        """Ids of a text, with the tokens that this tokenizer puts around one."""
        return self.backend_tokenizer.encode(text).ids

    def apply_chat_template(
        self, messages: Sequence[Mapping[str, str]], tokenize: Literal[False], add_generation_prompt: Literal[True]
    ) -> str:
        """The messages as the chat template writes them, up to where the answer begins.

        Raises:
            jinja2.TemplateError: the template is none, or refuses the messages.
        """
        from assembler.chat import render

        assert self.chat_template is not None
        return render(self.chat_template, messages, **self.special)

    def _id(self, role: str) -> int | None:
        return self.backend_tokenizer.token_to_id(self.special[role]) if role in self.special else None


def read_words(header: "Header") -> Words:
    """The tokenizer of `tokenizer.ggml.*`.

    Raises AssemblerError for a SentencePiece model or a pre-tokenizer that is not known here.
    """
    _check_kind(header)
    with told(f"{header.path}: the tokenizer could not be read"):
        tokens = header.need("tokenizer.ggml.tokens")
        roles = {"bos": "bos", "eos": "eos", "pad": "padding", "unk": "unknown"}
        ids = {role: header.get(f"tokenizer.ggml.{name}_token_id") for role, name in roles.items()}
        special = {f"{role}_token": tokens[index] for role, index in ids.items() if index is not None}
        tokenizer = _tokenizer(header, tokens, ids)
        tokenizer.add_special_tokens(list(dict.fromkeys(special.values())))
        return Words(tokenizer, special, header.get("tokenizer.chat_template"))


def build_tokenizer(header: "Header") -> "PreTrainedTokenizerFast":
    """The same as transformers' fast tokenizer; raises as `read_words` does."""
    words = read_words(header)
    with told(f"{header.path}: the tokenizer could not be read"):
        from transformers import PreTrainedTokenizerFast

        architecture = header.get("general.architecture", "")
        tokenizer = PreTrainedTokenizerFast(
            tokenizer_object=words.backend_tokenizer,
            model_max_length=header.get(f"{architecture}.context_length"),
            clean_up_tokenization_spaces=False,
            **words.special,
        )
        tokenizer.chat_template = words.chat_template
        return tokenizer


def _check_kind(header: "Header") -> None:
    model = header.need("tokenizer.ggml.model")
    if model != "gpt2":
        raise AssemblerError(
            f"{header.path} has a tokenizer of the kind '{model}', and only byte-level BPE ('gpt2') is read from GGUF. "
            "Give the tokenizer of the original model: a folder with its tokenizer.json, as file:FOLDER or hf:ORG/NAME."
        )
    split = header.get("tokenizer.ggml.pre", "default")
    if split not in PRETOKENIZERS:
        raise AssemblerError(
            f"{header.path} splits its text by '{split}', which is not known; {', '.join(PRETOKENIZERS)} are. "
            "Give the tokenizer of the original model: a folder with its tokenizer.json, as file:FOLDER or hf:ORG/NAME."
        )


def _tokenizer(header: "Header", tokens: list[str], ids: dict[str, int | None]) -> "Tokenizer":
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers

    split = header.get("tokenizer.ggml.pre", "default")
    merges = [tuple(merge.split(" ", 1)) for merge in header.need("tokenizer.ggml.merges")]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, ignore_merges=split == "llama-bpe"))
    if split == "qwen2":
        tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = _pretokenizer(split)
    tokenizer.decoder = decoders.ByteLevel()
    kinds = header.get("tokenizer.ggml.token_type", [])
    added = [(token, kind) for token, kind in zip(tokens, kinds, strict=False) if kind in (CONTROL, USER_DEFINED)]
    for token, kind in added:
        tokenizer.add_tokens([AddedToken(token, normalized=False, special=kind == CONTROL)])
    tokenizer.post_processor = _post_processor(header, tokens, ids, split)
    return tokenizer


def _pretokenizer(split: str) -> Any:
    from tokenizers import Regex
    from tokenizers.pre_tokenizers import ByteLevel, Digits, Sequence, Split

    if split in _SPLITS:
        words = Split(Regex(_SPLITS[split]), behavior="isolated")
        return Sequence([words, ByteLevel(add_prefix_space=False, use_regex=False)])
    if split == "smollm":
        return Sequence([Digits(individual_digits=True), ByteLevel(add_prefix_space=False)])
    return ByteLevel(add_prefix_space=False)


def _post_processor(header: "Header", tokens: list[str], ids: dict[str, int | None], split: str) -> Any:
    """Adds the begin and end tokens where the file says so; Llama 3's begins with one unless it says not to."""
    from tokenizers.processors import ByteLevel, Sequence, TemplateProcessing

    byte_level = ByteLevel(trim_offsets=False)
    begin = ids["bos"] if header.get("tokenizer.ggml.add_bos_token", split == "llama-bpe") else None
    end = ids["eos"] if header.get("tokenizer.ggml.add_eos_token", False) else None
    if begin is None and end is None:
        return byte_level
    before = "" if begin is None else f"{tokens[begin]} "
    after = "" if end is None else f" {tokens[end]}"
    special = [(tokens[index], index) for index in (begin, end) if index is not None]
    pieces = [f"{before}$A{after}", f"{before}$A:0{after} {before}$B:1{after}"]
    template = TemplateProcessing(single=pieces[0], pair=pieces[1], special_tokens=list(dict(special).items()))
    return Sequence([byte_level, template])

"""The byte-level BPE tokenizer in a GGUF file's metadata, as transformers' fast tokenizer."""

from typing import TYPE_CHECKING, Any

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


def build_tokenizer(header: "Header") -> "PreTrainedTokenizerFast":
    """The tokenizer of `tokenizer.ggml.*`, with its special tokens and its chat template.

    Raises AssemblerError for a SentencePiece model or a pre-tokenizer that is not known here.
    """
    _check_kind(header)
    with told(f"{header.path}: the tokenizer could not be read"):
        return _built(header)


def _built(header: "Header") -> "PreTrainedTokenizerFast":
    from transformers import PreTrainedTokenizerFast

    tokens = header.need("tokenizer.ggml.tokens")
    roles = {"bos": "bos", "eos": "eos", "pad": "padding", "unk": "unknown"}
    ids = {role: header.get(f"tokenizer.ggml.{name}_token_id") for role, name in roles.items()}
    named = {f"{role}_token": tokens[index] for role, index in ids.items() if index is not None}
    architecture = header.get("general.architecture", "")
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=_tokenizer(header, tokens, ids),
        model_max_length=header.get(f"{architecture}.context_length"),
        clean_up_tokenization_spaces=False,
        **named,
    )
    tokenizer.chat_template = header.get("tokenizer.chat_template")
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

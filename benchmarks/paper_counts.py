"""Trainable parameters of adapter methods on the architectures of their papers, counted on the meta device.

python -m benchmarks.paper_counts
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import torch
import transformers

from assembler.check import check
from assembler.compile import compile_graph
from assembler.part import AdapterPart
from assembler.registry import parts
from assembler.spec import Document, Spec, read

GALLERY = Path(__file__).parents[1] / "exports" / "gallery"
QV = "layers.*.attn.{q,v}"


class Row(NamedTuple):
    """One figure.

    Attributes:
        card: the method's number and name.
        spec: a spec of the gallery.
        what: the architecture and the setting, in words.
        names: the nodes and adapters whose parameters count.
        figure: as printed where it was read; empty where nobody states one.
        source: where it was read, or who computed it.
        adapters: adapters in place of the spec's own, all of them hosted by its `host`.
        why: why our count differs, where it does.
        of: where the figure is a share, the number that it is of.
    """

    card: str
    spec: str
    what: str
    names: tuple[str, ...]
    figure: str
    source: str
    adapters: dict[str, dict[str, Any]] | None = None
    why: str = ""
    of: int = 0


CLINICAL = "aryopg/clinical_peft, domain_adaptation_results.png (the paper's table 2)"
PEFT_GLORA = "huggingface/peft, method_comparison, glora--llama-3.2-3B"


def clinical(what: str, figure: str, **part: Any) -> Row:
    """A row of the comparison on LLaMA-7B."""
    tune = {"tune": {"host": "talk", **part}}
    return Row("5 clinical-llama-lora", "clinical-lora", f"LLaMA-7B, {what}", ("tune",), figure, CLINICAL, tune)


def adaption() -> dict[str, Any]:
    return {"type": "adapter.llama_adapter", "length": 10, "top": 30, "gates": "layer", "squash": False}


def lstm() -> dict[str, Any]:
    return {"type": "adapter.soft_prompt", "length": 20, "encoder": "lstm", "hidden": 256, "depth": 4}


def lora(rank: int) -> dict[str, Any]:
    return {"type": "adapter.lora", "sites": QV, "rank": rank}


LIBRARY = "paper of the adapters library, table 5"


def roberta(what: str, figure: str, source: str = LIBRARY, **part: Any) -> Row:
    """A method on RoBERTa-base."""
    tune = {"tune": {"host": "tasks", **part}}
    return Row("37 adapters-lib", "adapterfusion", f"RoBERTa-base, {what}", ("tune",), figure, source, tune)


def bottleneck(name: str, **part: Any) -> dict[str, Any]:
    return {"type": f"adapter.{name}", **part}


TEXT_ROWS: tuple[Row, ...] = (
    roberta("two bottlenecks, reduction 64", "461,088", **bottleneck("houlsby", size=12, norms=False)),
    roberta("two bottlenecks, reduction 2", "14,183,424", **bottleneck("houlsby", size=384, norms=False)),
    roberta("one bottleneck, reduction 64", "230,544", **bottleneck("pfeiffer", reduction=64)),
    roberta("one bottleneck, reduction 2", "7,091,712", **bottleneck("pfeiffer", reduction=2)),
    roberta("parallel, reduction 64", "230,544", **bottleneck("parallel", size=12)),
    roberta("parallel, reduction 2", "7,091,712", **bottleneck("parallel", size=384)),
    roberta("Compacter, reduction 16", "58,816", **bottleneck("compacter", reduction=16)),
    roberta("Compacter, reduction 4", "69,184", **bottleneck("compacter", reduction=4)),
    roberta("prefix of 5, 32 inside", "636,704", **bottleneck("prefix", length=5, bottleneck=32)),
    roberta("prefix of 200, 512 inside", "10,002,944", **bottleneck("prefix", length=200, bottleneck=512)),
    roberta("LoRA r=4 on q, v", "147,456", **lora(4)),
    roberta("LoRA r=200 on q, v", "7,372,800", **lora(200)),
    roberta("(IA)3", "55,296", **bottleneck("ia3")),
    Row("37 adapters-lib", "adapters-library", "RoBERTa-base, as its spec is", ("tune",), "58,816", LIBRARY),
    roberta(
        "LoReFT r=1",
        "36,888",
        "adapter-hub/adapters, notebooks/ReFT_Adapters_Finetuning.ipynb",
        **bottleneck("loreft", rank=1),
    ),
    Row("36 adapterfusion", "adapterfusion", "RoBERTa-base, the fusion", ("mix",), "", "no figure read"),
    Row("52 houlsby", "houlsby", "BERT-base, m=64, with norms", ("tune",), "2,417,664", "computed"),
    Row(
        "57 mad-x",
        "mad-x",
        "XLM-R base, language, words and task",
        ("english", "english_words", "task"),
        "8.25M",
        "paper, section 7",
        why="the figure leaves out the 24,768 biases",
    ),
    Row("86 adaptformer", "adaptformer", "ViT-B/16, m=64", ("tune",), "", "no figure read"),
    Row(
        "82 llama-adapter",
        "llama-adapter",
        "LLaMA-7B, text alone",
        ("tune",),
        "1.2M",
        "abstract",
        {"tune": {"type": "adapter.llama_adapter", "host": "talk"}},
    ),
)

T5 = ("T5Config", "T5ForConditionalGeneration")
WHISPER = {
    "d_model": 768,
    **{f"{side}_{what}": 12 for side in ("encoder", "decoder") for what in ("layers", "attention_heads")},
}
WHOLE: dict[str, tuple[str, str, dict[str, Any]]] = {
    "T5-base": (*T5, {"d_model": 768, "d_kv": 64, "d_ff": 3072, "num_layers": 12, "num_heads": 12}),
    "T5-small": (*T5, {"d_model": 512, "d_kv": 64, "d_ff": 2048, "num_layers": 6, "num_heads": 8}),
    "Whisper-small": ("WhisperConfig", "WhisperModel", {**WHISPER, "encoder_ffn_dim": 3072, "decoder_ffn_dim": 3072}),
}
"""Models of an encoder and a decoder, which no node of a spec is: transformers' classes, and the config."""


def t5(size: str, what: str, figure: str, source: str, whole: int, **part: Any) -> Row:
    """The share of a T5 that HyperFormer adds for each of eight tasks."""
    tune = {"tune": {"type": "adapter.hyperformer", "host": "t5", "tasks": 8, **part}}
    return Row("31 hyperformer", size, f"{size}, {what}, a task of 8", ("tune",), figure, source, tune, of=8 * whole)


T5_ROWS: tuple[Row, ...] = (
    t5("T5-base", "HyperFormer++", "0.29%", "abstract", 222_903_552),
    t5("T5-base", "HyperFormer", "6.86%", "the method's card", 222_903_552, shared=False),
    t5("T5-small", "HyperFormer++", "0.50%", "the method's card", 60_506_624),
    Row("31 hyperformer", "hyperformer", "T5-base's encoder, HyperFormer++", ("tune",), "", "no figure read"),
    Row(
        "37 adapters-lib",
        "Whisper-small",
        "Whisper-small, LoRA r=8 on q, v of all attention",
        ("tune",),
        "884,736",
        "adapter-hub/adapters, notebooks/Adapter_Whisper_Audio_FineTuning.ipynb",
        {"tune": {**lora(8), "host": "ears", "sites": "layers.*.{attn,cross}.{q,v}"}},
    ),
    Row(
        "37 adapters-lib",
        "adaptformer",
        "ViT-B/16, Adapter+ of reduction 96",
        ("tune",),
        "165,984",
        "adapter-hub/adapters, notebooks/ViT_AdapterPlus_FineTuning.ipynb",
        {"tune": {"type": "adapter.pfeiffer", "host": "eyes", "reduction": 96, "scale": "channel"}},
    ),
)
SPARSE_HOULSBY = {"type": "adapter.houlsby", "size": 64, "norms": False, "init": "bert"}
SPARSE = {"tune": {"type": "adapter.sparse_adapter", "host": "tasks", "adapter": SPARSE_HOULSBY}}
LORA32 = {**lora(32), "host": "tasks"}
SPARSE_MOA = {"type": "adapter.moa", "host": "talk", "sparse": True}
APLA = {"type": "adapter.apla", "host": "eyes"}
MORE_ROWS: tuple[Row, ...] = (
    Row("58 shira", "shira", "LLaMA-7B, as LoRA of r=32", ("tune",), "56,098,816", "computed"),
    Row("118 apla", "apla", "ViT-B/16, r=8", ("tune",), "73,824", "computed"),
    Row("118 apla", "apla", "ViT-B/16, all", ("tune",), "7,087,104", "computed", {"tune": APLA}),
    Row(
        "61 sparse-adapter",
        "sparse-adapter",
        "RoBERTa-base, two of 64, dense",
        ("tune",),
        "2,379,264",
        "computed",
        SPARSE,
    ),
    Row("94 eigenlorax", "eigenlorax", "RoBERTa-base, K=8, r=32", ("tune",), "12K", "image of the paper's table 2"),
    Row("94 eigenlorax", "eigenlorax", "RoBERTa-base, LoRA r=32", ("tune",), "1.2M", "the same", {"tune": LORA32}),
    Row("30 kore", "kore", "LLaMA-7B, r=235", ("tune",), "319,569,920", "computed"),
    Row("96 moa", "moa", "Llama-3.1-8B, soft", ("tune",), "24,520,288", "computed"),
    Row("96 moa", "moa", "Llama-3.1-8B, sparse", ("tune",), "22,289,120", "computed", {"tune": SPARSE_MOA}),
    Row("60 opamp-adapter", "opamp", "Llama-3.1-8B, every second layer", ("zoom",), "20,971,520", "computed"),
    Row("105 meteora", "meteora", "Llama-3-8B, gates over 4 LoRAs", ("gate",), "4,980,736", "computed"),
    Row("49 mosa", "mosa", "ViT-B/16, AdaptFormer of 64", ("tune",), "1,189,632", "computed"),
    Row("89 mixda", "mixda", "RoBERTa-large, one domain", ("medical",), "2,624,000", "computed"),
    Row("89 mixda", "mixda", "RoBERTa-large, gate over two", ("gate",), "", "no figure read"),
    Row("25 pema", "pema", "LLaMA-7B, r=512", ("memory",), "6,291,456", "computed"),
    Row("19 hyper-adapters", "hyper-adapters", "12 layers of 512, 612 inside", ("tune",), "82,340,640", "computed"),
)


def speech(card: str, spec: str, what: str, figure: str, source: str = "computed", **part: Any) -> Row:
    """A method on the encoder of a spec for sound."""
    return Row(card, spec, what, ("tune",), figure, source, {"tune": {"host": "ears", **part}} if part else None)


SPEECH_ROWS: tuple[Row, ...] = (
    speech("62 ssl-speech", "ssl-speech", "HuBERT base, bottleneck of 32 a layer", "599,424"),
    speech("62 ssl-speech", "ssl-speech", "HuBERT base, LoRA r=8 on q, v", "294,912", **lora(8)),
    speech(
        "62 ssl-speech", "ssl-speech", "HuBERT base, BitFit in layers", "101,376", type="adapter.bitfit", where="layers"
    ),
    speech(
        "62 ssl-speech",
        "ssl-speech",
        "HuBERT base, AdapterBias on the MLP's output",
        "18,444",
        type="adapter.adapter_bias",
        reads="output",
        norms=False,
    ),
    speech(
        "65 petl-ast",
        "petl-ast",
        "AST, convolution r=8, k=31, one norm a layer",
        "252,288",
        type="adapter.conformer_conv",
        norms="beside",
    ),
    speech(
        "65 petl-ast",
        "petl-ast",
        "AST, bottleneck of 12, one norm a layer",
        "248,976",
        type="adapter.parallel",
        size=12,
        activation="gelu",
        norms="beside",
    ),
    speech("65 petl-ast", "petl-ast", "AST, LoRA r=6 on q, v", "221,184", **lora(6)),
    speech("65 petl-ast", "petl-ast", "AST, 25 prompts a layer", "230,400", type="adapter.deep_prompt"),
    speech(
        "65 petl-ast", "petl-ast", "AST, 300 prompts", "230,400", type="adapter.deep_prompt", length=300, deep=False
    ),
    speech("65 petl-ast", "petl-ast", "AST, all biases", "102,912", type="adapter.bitfit"),
)


def prefixed(what: str, figure: str, length: int) -> Row:
    """A P-Adapter that makes virtual tokens."""
    tune = {"tune": {"type": "adapter.prefix_generator", "host": "read", "length": length}}
    return Row("15 p-adapters", "p-adapters", what, ("tune",), figure, "computed", tune)


PICTURE_ROWS: tuple[Row, ...] = (
    Row("9 fsa", "fsa", "EfficientNet-B0, FiLM on stem, depthwise, head", ("film",), "20,544", "computed"),
    Row("92 vlsm-adapter", "vlsm-adapter", "CLIPSeg, dense", ("tune",), "3,237,376", "computed"),
    Row(
        "92 vlsm-adapter",
        "vlsm-adapter",
        "CLIPSeg, shallow",
        ("tune",),
        "4,201,984",
        "computed",
        {"tune": {"type": "adapter.vlsm_shallow", "host": "seg"}},
    ),
    Row("104 cloud-adapter", "cloud-adapter", "DINOv2-L", ("tune",), "1,828,431", "computed"),
    Row(
        "97 multiway",
        "multiway",
        "12 layers of 768 a sense, m=64, extractors alone",
        ("vision", "text"),
        "2,379,264",
        "computed",
        {
            name: {"type": "adapter.multiway", "host": host, "sense": name, "enhancer": 0}
            for name, host in (("vision", "eyes"), ("text", "read"))
        },
    ),
    Row("14 mma-clip", "mma-clip", "CLIP ViT-B/16, b=128", ("name",), "197,760", "computed"),
    Row("8 pumgpt", "pumgpt", "LLaMA-7B and CLIP ViT-L/14", ("tune",), "", "no figure read"),
    Row("46 k-adapter", "k-adapter", "RoBERTa-large, one side network", ("facts",), "", "no figure read"),
    Row("15 p-adapters", "p-adapters", "BERT-base, rewrite", ("tune",), "7,680,768", "computed"),
    prefixed("BERT-base, prefix of 3", "9,452,544", 3),
    prefixed("BERT-base, 9 tokens", "12,996,096", 9),
    Row("56 coda", "coda", "ViT-B/16, m=64, a third of the tokens", ("tune",), "", "no figure read"),
    Row("73 alter", "alter", "LM of 135M, 8 adapters of 64", ("mix",), "", "no figure read"),
)


ROWS: tuple[Row, ...] = (
    *TEXT_ROWS,
    clinical("LoRA r=16 on q, v", "8,388,608", **lora(16)),
    clinical("prefix of 20", "5,242,880", type="adapter.prefix", length=20),
    clinical("prompt of 15", "61,440", type="adapter.soft_prompt", length=15),
    clinical("P-tuning, LSTM, 20 tokens", "16,093,696", **lstm()),
    clinical("adaption prompt of 10, 30 layers", "1,228,830", **adaption()),
    clinical("LoRA r=4 on q, v (PMC-LLaMA)", "2,097,152", **lora(4)),
    clinical("prefix of 10 (PMC-LLaMA)", "2,621,440", type="adapter.prefix", length=10),
    clinical("prompt of 10 (PMC-LLaMA)", "40,960", type="adapter.soft_prompt", length=10),
    clinical(
        "P-tuning, MLP, 1 token (PMC-LLaMA)",
        "2,171,392",
        type="adapter.soft_prompt",
        length=1,
        encoder="mlp",
        hidden=256,
    ),
    Row("42 adapterbias", "adapter-bias", "BERT-large, with norms", ("tune",), "0.17M", "the method's card"),
    Row("24 lotr", "lotr", "RoBERTa-base, r=32 on q, v", ("tune",), "", "no figure read"),
    Row(
        "13 af-adapter",
        "af-adapter",
        "Chinese RoBERTa-wwm-ext, 1 head, 1,024 units",
        ("domain",),
        "21,266,688",
        "computed",
    ),
    Row("20 x-lora", "xlora", "Mistral-7B, head of depth 1 for 2 x 128 points", ("mix",), "", "no figure read"),
    Row("11 flexidepth", "flexidepth", "Llama-3-8B, the last 16 layers", ("depth",), "", "no figure read"),
    Row("1 inra", "inra", "DeepSeek-R1-Distill-Qwen-1.5B", ("brief",), "46,797,824", "computed"),
    Row("6 mixlora", "mixlora", "LLaMA-2-7B, 8 experts, r=16", ("experts",), "", "no figure read"),
    Row("29 layra", "layra", "Llama-3.1-8B, r=8, first 10 and last 2", ("galician",), "7,864,320", "computed"),
    Row(
        "33 glora", "glora-llama", "Llama-3.2-3B, q and v, low rank 8", ("tune",), "4,587,520", PEFT_GLORA + "-default"
    ),
    Row(
        "33 glora",
        "glora-llama",
        "Llama-3.2-3B, q and v, vectors",
        ("tune",),
        "229,376",
        PEFT_GLORA + "-vector-paths",
        {"tune": {"type": "adapter.glora", "host": "talk", "sites": QV, "a": "vector", "b": "vector"}},
    ),
    *SPEECH_ROWS,
    *PICTURE_ROWS,
    Row("33 glora", "glora", "ViT-B/16, supernet of r=4", ("tune",), "1,603,776", "computed"),
    *MORE_ROWS,
    *T5_ROWS,
)
"""By card; a method's `computed` figures were worked out apart from this code, and nobody published them."""


def count(row: Row) -> int:
    """The parameters of what a row names, in its spec."""
    if row.spec in WHOLE and row.adapters is not None:
        config, model, sizes = WHOLE[row.spec]
        with torch.device("meta"):
            host = getattr(transformers, model)(getattr(transformers, config)(**sizes))
        raw = {**row.adapters["tune"]}
        part = parts()[raw.pop("type")].model_validate(raw)
        assert isinstance(part, AdapterPart)
        return sum(host.get_parameter(key).numel() for key in part.attach(host, "tune", 0))
    spec = read(GALLERY / f"{row.spec}.yaml")
    if row.adapters is not None:
        fed = {f"-> {name}." for name in spec.tree.get("adapters", {})}
        edges = [edge for edge in spec.tree.get("edges", []) if not any(port in edge for port in fed)]
        tree = {**spec.tree, "adapters": row.adapters, "compose": {}, "edges": edges, "stages": []}
        spec = Spec(spec.path, Document.model_validate(tree), tree)
    assembly = compile_graph(check(spec), device="meta")
    counts = {key: parameter.numel() for key, parameter in assembly.named_parameters()}
    return sum(counts[key] for name in row.names for key in assembly.of(name))


def met(row: Row, found: int) -> bool:
    """Whether our count is the figure, to the digits that it is printed with: `172,056`, `0.17M`, `8.24B`, `0.29%`."""
    if row.of:
        digits = len(row.figure.partition(".")[2]) - 1
        return f"{100 * found / row.of:.{digits}f}%" == row.figure
    unit = {"K": 1e3, "M": 1e6, "B": 1e9}.get(row.figure[-1:], 0)
    if not unit:
        return row.figure == "" or found == int(row.figure.replace(",", ""))
    digits = len(row.figure.partition(".")[2]) - 1 if "." in row.figure else 0
    return f"{found / unit:.{digits}f}" == row.figure[:-1]


def rows() -> list[tuple[str, str, str]]:
    """(what, figure, target)."""
    found = []
    for row in ROWS:
        ours = count(row)
        target = f"{row.figure or 'none'} ({row.source})"
        if not met(row, ours):
            target += f"; differs: {row.why or 'WRONG'}"
        found.append((f"{row.card}: {row.what}", f"{ours:,}", target))
    return found


def main() -> int:
    """Print the table; 1 when a figure is missed without a reason."""
    from rich.console import Console
    from rich.table import Table

    table, found = Table("card: architecture", "our count", "figure and source"), rows()
    for row in found:
        table.add_row(*row)
    Console().print(table)
    return int(any("WRONG" in target for _, _, target in found))


if __name__ == "__main__":
    raise SystemExit(main())

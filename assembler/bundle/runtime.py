"""Serve a bundle from onnxruntime alone: no torch, no transformers.

bundle = Bundle(Path("bundles/digits"))
bundle.generate([{"photo": image}], max_new_tokens=8)
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from tokenizers import Tokenizer

from assembler.bundle.decoding import CACHES, DTYPES, Decoding, attention
from assembler.bundle.manifest import WEIGHTS, read_manifest
from assembler.bundle.pages import large_pages
from assembler.bundle.processor import tensors
from assembler.bundle.prompt import prompt_ids, segments
from assembler.bundle.switching import read_adapter
from assembler.errors import AssemblerError, told
from assembler.files import file_hash

Sample = Mapping[str, Any]
Features = tuple[np.ndarray, np.ndarray | None]
"""What fills a slot: [n, tokens, D], and where it is ragged the mask [n, tokens] of those that are real."""


class Bundle:
    """A folder with manifest.json, an encoder graph a slot, embedding and decoder graphs, and a tokenizer.

    Raises AssemblerError when the manifest is of another format, a file is missing, changed, unlisted or outside the
    folder, or a provider that was asked for did not load.
    """

    def __init__(self, folder: Path, providers: list[str] | None = None) -> None:
        self.folder = Path(folder).resolve()
        self.manifest = read_manifest(self.folder)
        self._verify()
        self.providers = providers or ["CPUExecutionProvider"]
        self.device = "cuda" if "CUDAExecutionProvider" in self.providers else "cpu"
        if self.manifest.precision == "bf16" and self.device == "cpu":
            raise AssemblerError(
                f"{self.folder.name} is in bf16, which onnxruntime computes on CUDA alone; "
                "name CUDAExecutionProvider, or export fp16 or fp32"
            )
        self.tokenizer = self._tokenizer()
        self._decoding = CACHES[self.manifest.cache]
        with large_pages(self.device):
            self.encoders = {file: self._session(file, set()) for file in self.manifest.encoders}
            self.embedding = self._session(self.manifest.embedding, {"input_ids", "features"})
            with attention(self.manifest.held):
                self.decoder = self._session(self.manifest.decoder, self._decoding.inputs)
        self._reading: onnxruntime.InferenceSession | None = None
        self.reader = self._read if self.manifest.prompts and self.device == "cpu" else None
        self._adapters: dict[str, dict[str, onnxruntime.OrtValue]] = {}
        self._features = next(x for x in self.embedding.get_inputs() if x.name == "features")

    def _read(self) -> onnxruntime.InferenceSession:
        """The decoder's session for long prompts, made when the first one comes, of the files that were there before.

        Raises:
            AssemblerError: the folder has been changed since.
        """
        if self._reading is None:
            assert self.manifest.prompts is not None
            self._verify()
            with large_pages(self.device), attention(self.manifest.held):
                self._reading = self._session(self.manifest.prompts, self._decoding.inputs)
        return self._reading

    def features(self, file: str, samples: Sequence[Sample]) -> dict[str, Features]:
        """What a graph makes of its inputs, for each slot that it fills."""
        slots = {name: slot for name, slot in self.manifest.slots.items() if slot.graph == file}
        session = self.encoders[file]
        types = {x.name: DTYPES[x.type] for x in session.get_inputs()}
        names = [x.name for x in session.get_outputs()]
        feeds: dict[str, np.ndarray] = {}
        for key in next(iter(slots.values())).inputs:
            for suffix, batch in self._tensors(key, samples).items():
                full = f"{key}_{suffix}" if suffix else key
                if full in types:
                    feeds[full] = batch.astype(types[full], copy=False)
        with told(f"{file} does not run; export again"):
            given = dict(zip(names, map(np.asarray, session.run(None, feeds)), strict=True))
        found: dict[str, Features] = {}
        for name, slot in slots.items():
            out = [given[x] for x in slot.outputs or names if x in given]
            if len(out) != 1 + slot.ragged or out[0].ndim != 3 or out[0].shape[1] != slot.tokens:
                shapes = " and ".join(str(x.shape) for x in out) or "nothing"
                raise AssemblerError(f"{name}: {file} gave {shapes}, not [n, {slot.tokens}, D]; export again")
            found[name] = out[0], out[1] if slot.ragged else None
        return found

    def _tensors(self, key: str, samples: Sequence[Sample]) -> dict[str, np.ndarray]:
        """The batch of one input, and its mask."""
        item = self.manifest.inputs[key]
        made = []
        for sample in samples:
            try:
                made.append(tensors(_value(sample, key), item.processor, item.masked, self.folder))
            except AssemblerError as error:
                raise AssemblerError(f"{key}: {error}") from error
        return {suffix: np.stack([one[suffix] for one in made]) for suffix in made[0]}

    def encode(self, batch: Sequence[Sample]) -> tuple[np.ndarray, np.ndarray]:
        """inputs_embeds [B, T, D], padded on the side that the decoder's cache wants, and the lengths [B]."""
        prompts = [segments(self.manifest.prompt, sample) for sample in batch]
        ids, features = self._rows(batch, prompts)
        lengths = np.array([len(row) for row in ids], np.int64)
        most = self.manifest.positions
        if most is not None and lengths.max() > most:
            raise AssemblerError(f"the prompt has {lengths.max()} tokens, and the model reads {most}; make it shorter")
        input_ids = np.zeros((len(ids), lengths.max()), dtype=np.int64)
        for row, values in zip(input_ids, ids, strict=True):
            row[slice(-len(values), None) if self._decoding.left else slice(len(values))] = values
        return self.embed(input_ids, features), lengths

    def logits(self, samples: Sequence[Sample], adapter: str | None = None) -> np.ndarray:
        """Logits of the token after each prompt: [B, V]."""
        return self.decoding(adapter).start(*self.encode(samples), room=0)

    def told(
        self, samples: Sequence[Sample], answers: Sequence[Sequence[int]], adapter: str | None = None
    ) -> list[np.ndarray]:
        """Logits [answer tokens, V] of each sample's given answer: what is thought before each of its tokens."""
        embeds, lengths = self.encode(samples)
        decoding = self.decoding(adapter)
        longest = max(map(len, answers))
        logits = [decoding.start(embeds, lengths, longest)]
        for step in range(longest - 1):
            token = np.array([[answer[min(step, len(answer) - 1)]] for answer in answers], np.int64)  # [B, 1]
            logits.append(decoding.step(self.embed(token, None)))
        return [np.stack([step[i] for step in logits[: len(answer)]]) for i, answer in enumerate(answers)]

    def generate(
        self, samples: Sequence[Sample], max_new_tokens: int | None = None, adapter: str | None = None
    ) -> list[str]:
        """The greedy answer of every sample, with a LoRA of the bundle where one is named."""
        return [self.text(ids) for ids in self.generate_ids(samples, max_new_tokens, adapter=adapter)]

    def text(self, ids: Sequence[int]) -> str:
        """An answer in words, without special tokens and the space that sets it off from its prompt."""
        return self.tokenizer.decode(ids).removeprefix(" ")

    def generate_ids(
        self,
        samples: Sequence[Sample],
        max_new_tokens: int | None = None,
        tell: Callable[[list[list[int]]], None] = lambda answers: None,
        adapter: str | None = None,
    ) -> list[list[int]]:
        """The greedy token ids of every sample, up to and without the first stop id; `tell` hears them as they grow."""
        if not samples:
            return []
        stop = set(self.manifest.stop)
        answers: list[list[int]] = [[] for _ in samples]
        going = np.ones(len(samples), dtype=bool)
        embeds, lengths = self.encode(samples)
        limit = self.room(lengths, max_new_tokens)
        decoding = self.decoding(adapter)
        for step in range(limit):
            logits = decoding.start(embeds, lengths, limit) if step == 0 else decoding.step(embeds)
            token = logits.argmax(-1)  # [B]
            going &= ~np.isin(token, list(stop))
            for row in np.flatnonzero(going):
                answers[row].append(int(token[row]))
            tell(answers)
            if not going.any() or step + 1 == limit:
                break
            embeds = self.embed(token[:, None].astype(np.int64), None)  # [B, 1, D]
        return answers

    def room(self, lengths: np.ndarray, wanted: int | None = None) -> int:
        """How many tokens an answer to prompts of `lengths` has at most, of those `wanted` or of the bundle's own."""
        limit = self.manifest.max_new_tokens if wanted is None else wanted
        return (
            limit if self.manifest.positions is None else min(limit, self.manifest.positions + 1 - int(lengths.max()))
        )

    def _rows(self, batch: Sequence[Sample], prompts: list[list[dict[str, str]]]) -> tuple[list[list[int]], np.ndarray]:
        """Ids of every prompt and the feature rows [N, D] that ids from vocab_size on stand for."""
        slots = self.manifest.slots
        used = [name for name in slots if any({"slot": name} in parts for parts in prompts)]
        start, blocks = self.manifest.vocab_size, []
        places: dict[str, list[np.ndarray]] = {}
        filled: dict[str, Features] = {}
        for name in used:
            if name not in filled:
                filled |= self.features(slots[name].graph, batch)
            out, real = filled[name]  # [B, tokens, D]
            numbers = start + np.arange(out.shape[0] * out.shape[1]).reshape(out.shape[:2])  # [B, tokens]
            places[name] = [row if real is None else row[real[i]] for i, row in enumerate(numbers)]
            start += numbers.size
            blocks.append(out.reshape(-1, out.shape[2]))
        ids = []
        for i, parts in enumerate(prompts):
            rows = {name: places[name][i].tolist() for name in used}
            begin = [] if self.manifest.bos is None else [self.manifest.bos]
            ids.append(begin + prompt_ids(parts, rows, self.tokenize))
        empty = np.zeros((0, self._features.shape[1]), dtype=DTYPES[self._features.type])
        return ids, np.concatenate([empty, *blocks])

    def tokenize(self, text: str) -> list[int]:
        """Token ids of a text, as they stand in a prompt."""
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    def decoding(self, adapter: str | None = None) -> Decoding:
        """A new batch's decoding, with the LoRA of a name where one is given."""
        return self._decoding(self.decoder, self.device, self.adapter(adapter), self.reader)

    def adapter(self, name: str | None) -> Mapping[str, onnxruntime.OrtValue]:
        """The matrices of a LoRA, by the names of the decoder's inputs; none without a name.

        Raises:
            AssemblerError: the bundle has none of that name.
        """
        if name is None:
            return {}
        if name not in self.manifest.adapters:
            known = ", ".join(self.manifest.adapters) or "none"
            raise AssemblerError(f"the bundle has no adapter {name!r:.80}; it has {known}")
        if name not in self._adapters:
            path = self._path(self.manifest.adapters[name])
            with told(f"{path} is no adapter that onnxruntime can read; export again"):
                self._adapters[name] = read_adapter(path)
        return self._adapters[name]

    def embed(self, input_ids: np.ndarray, features: np.ndarray | None) -> np.ndarray:
        """inputs_embeds [B, T, D] of ids [B, T], of which V + r is row r of features [N, D]."""
        if features is None:
            features = np.zeros((0, self._features.shape[1]))
        features = features.astype(DTYPES[self._features.type], copy=False)
        with told(f"{self.manifest.embedding} does not run; export again"):
            return np.asarray(self.embedding.run(None, {"input_ids": input_ids, "features": features})[0])

    def _tokenizer(self) -> Tokenizer:
        path = self._path(self.manifest.tokenizer)
        with told(f"{path} is no tokenizer; export again"):
            return Tokenizer.from_file(str(path))

    def _session(self, name: str, inputs: set[str]) -> onnxruntime.InferenceSession:
        # TF32 would cost fp32 graphs three digits.
        options = [{"use_tf32": "0"} if x == "CUDAExecutionProvider" else {} for x in self.providers]
        path = self._path(name)
        with told(f"{path} is no graph that onnxruntime can load; export again"):
            session = onnxruntime.InferenceSession(
                str(path), session_options(), providers=self.providers, provider_options=options
            )
        missing = [x for x in self.providers if x not in session.get_providers()]
        if missing:
            raise AssemblerError(f"{name}: onnxruntime could not load {', '.join(missing)}; name another provider.")
        lacking = sorted(inputs - {x.name for x in session.get_inputs()})
        if lacking:
            raise AssemblerError(f"{path} has no input {lacking[0]}; export again")
        return session

    def _verify(self) -> None:
        """Every file is the one that was exported, and no weights lie beside a graph that are not."""
        files = self.manifest.files
        data = [WEIGHTS, *(f"{name}.data" for name in (*self.manifest.graphs, self.manifest.prompts) if name)]
        unlisted = [name for name in data if name not in files and self._path(name).exists()]
        if unlisted:
            raise AssemblerError(f"{self.folder.name}: manifest.json gives no hash for {unlisted[0]}; export again.")
        for name, digest in files.items():
            path = self._path(name)
            if not path.is_file():
                raise AssemblerError(f"{self.folder.name}: {name} is missing; copy the whole folder or export again.")
            if file_hash(path) != digest:
                raise AssemblerError(f"{self.folder.name}: {name} is not the file that was exported; its hash differs.")

    def _path(self, name: str) -> Path:
        path = (self.folder / name).resolve()
        if not path.is_relative_to(self.folder):
            raise AssemblerError(f"{self.folder.name}: {name} leads outside the bundle; copy the file into it.")
        return path


def session_options() -> onnxruntime.SessionOptions:
    """How the graphs of one bundle run beside each other.

    By default the threads of a session look out for work for some 50 ms after its last, on the processors that the next
    graph's session wants by then; a millisecond is enough to wait from one step of the decoder to the next. What is no
    error is not told: of each matrix of a LoRA that may be switched it would be said that it is no constant.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.spin_duration_us", "1000")
    options.add_session_config_entry("session.prepack.enable_parallel", "1")
    return options


def _value(sample: Sample, name: str) -> Any:
    if sample.get(name) is None:
        raise AssemblerError(f"{name}: the sample has no '{name}'; it has {', '.join(sample) or 'nothing'}.")
    return sample[name]

"""Whisper with its own decoder, from any of its layouts: what `encoder.whisper` with an LLM is measured against."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig, PreTrainedTokenizerFast, WhisperConfig, WhisperForConditionalGeneration

from assembler.bundle.processor import resampled
from assembler.errors import AssemblerError, told
from assembler.samples import Sound
from components.encoders._states import place_exactly
from components.encoders._whisper import RATE, LogMel
from components.encoders._whisper_weights import whisper_config, whisper_state

SECONDS = 30


class WholeWhisper:
    """Encoder and decoder of the Whisper at `folder`, with the tokenizer.json beside them; answers greedily.

    Raises:
        AssemblerError: the folder lacks the weights or the tokenizer.
    """

    def __init__(self, folder: Path) -> None:
        config, file = whisper_config(folder), folder / "tokenizer.json"
        with told(f"{file} is no tokenizer; bring the one of these weights"):
            self.tokenizer: Any = PreTrainedTokenizerFast(tokenizer_file=str(file))
        with told("transformers cannot make a Whisper of this config"):
            self.model: Any = WhisperForConditionalGeneration(WhisperConfig(**_tokens(config, self._id)))
        place_exactly(self.model.model, whisper_state(folder), ("",), str(folder))
        self.model.tie_weights()
        self.model.eval()
        self.model.generation_config = self._generation(folder)
        self.mel = LogMel(config["num_mel_bins"])

    def _id(self, token: str) -> int:
        found = self.tokenizer.convert_tokens_to_ids(token)
        if found is None:
            raise AssemblerError(f"the tokenizer has no {token}; bring the tokenizer.json of a Whisper")
        return int(found)

    def _generation(self, folder: Path) -> GenerationConfig:
        """Transcription without times, in English where the model knows several languages."""
        path = folder / "config.json"
        known = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        start, end = self._id("<|startoftranscript|>"), self._id("<|endoftext|>")
        several = self.model.config.vocab_size >= 51_865
        more = {"lang_to_id": {"<|en|>": self._id("<|en|>")}, "task_to_id": {"transcribe": self._id("<|transcribe|>")}}
        return GenerationConfig(
            decoder_start_token_id=start,
            eos_token_id=end,
            pad_token_id=end,
            no_timestamps_token_id=self._id("<|notimestamps|>"),
            is_multilingual=several,
            suppress_tokens=known.get("suppress_ids") or known.get("suppress_tokens") or [],
            begin_suppress_tokens=known.get("suppress_ids_begin") or known.get("begin_suppress_tokens") or [],
            max_length=self.model.config.max_target_positions,
            return_timestamps=False,
            **(more if several else {}),
        )

    def transcribe(self, sounds: Sequence[Sound]) -> list[str]:
        """What the model hears in sounds of up to 30 s, one text each."""
        batch = torch.zeros(len(sounds), SECONDS * RATE)
        for row, sound in zip(batch, sounds, strict=True):
            samples = torch.from_numpy(resampled(sound.samples, sound.rate, RATE)[: len(row)])
            row[: len(samples)] = samples
        several = {"language": "en", "task": "transcribe"} if self.model.generation_config.is_multilingual else {}
        with torch.no_grad():
            ids = self.model.generate(self.mel(batch), **several)
        return [text.strip() for text in self.tokenizer.batch_decode(ids, skip_special_tokens=True)]


def _tokens(config: dict[str, Any], id_of: Any) -> dict[str, Any]:
    """The config with the ids of this tokenizer."""
    end = id_of("<|endoftext|>")
    ids = {"pad_token_id": end, "bos_token_id": end, "eos_token_id": end}
    knobs = {key: x for key, x in config.items() if key not in ("model_type", "architectures", "auto_map")}
    return {**knobs, **ids, "decoder_start_token_id": id_of("<|startoftranscript|>")}

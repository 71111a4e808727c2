"""Watch a model learn: its answers to a few held-out rows, every so many steps.

RUN/samples/rows.json        the rows: what is expected, the texts, and the files of pictures
RUN/samples/answers.jsonl    one line a look: stage, step, answers
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from assembler.batches import split
from assembler.compile import Assembly
from assembler.evaluate import Row, TorchAnswers, expected_columns
from assembler.files import write_text
from assembler.graph import Graph
from assembler.runs import Run

ROWS = 4


class Watch(TrainerCallback):
    """Answers `ROWS` held-out rows every `every` steps and after the last; the training goes on as without it."""

    def __init__(self, run: Run, graph: Graph, assembly: Assembly, stage: str, every: int) -> None:
        learn, held_out = split(graph)
        self.rows = list((held_out or learn)[:ROWS])
        self.run, self.stage, self.every = run, stage, every
        self.answers = TorchAnswers(graph, assembly)
        if not run.answers_path.parent.exists():
            write_rows(graph, self.rows, run.answers_path.parent)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        last = state.global_step == state.max_steps
        if not state.is_world_process_zero or (state.global_step % self.every and not last):
            return
        with torch.random.fork_rng():  # whatever an answer draws, the next step draws what it would have
            given = self.answers(self.rows)
        line = {"stage": self.stage, "step": state.global_step, "answers": given}
        with self.run.answers_path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


def write_rows(graph: Graph, rows: Sequence[Row], folder: Path) -> None:
    """What a person needs to judge the answers by: pictures as files, texts and numbers as they are."""
    folder.mkdir(parents=True, exist_ok=True)
    expected = expected_columns(graph)
    read = graph.columns()
    told = []
    for index, row in enumerate(rows):
        seen = {key: row[key] for key in row if key in read and key not in expected}
        texts = {key: value for key, value in seen.items() if isinstance(value, str | int | float)}
        images: dict[str, str] = {}
        for key, value in seen.items():
            if isinstance(value, Image.Image):
                images[key] = f"{index}-{len(images)}.png"
                value.convert("RGB").save(folder / images[key])
        right = [row[name] for name in expected]
        told.append({"expected": right[0] if len(right) == 1 else right, "texts": texts, "images": images})
    write_text(folder / "rows.json", json.dumps(told) + "\n")

"""Train: the stages of a spec on transformers' Trainer, each resumable from any kill with the same loss curve."""

from __future__ import annotations

import json
import math
import shutil
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from torch import Tensor
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from assembler.batches import Batches, split, tempered
from assembler.check import check
from assembler.compile import Assembly, compile_graph
from assembler.errors import AssemblerError, told
from assembler.features import GIB, kept
from assembler.fetching import fetched_graph
from assembler.graph import Graph
from assembler.processes import Process
from assembler.runs import Run, load_learned, save_learned
from assembler.spec import Spec, Stage
from assembler.watching import Watch

LEARNED = "learned.safetensors"
CACHE = 10.0
"""GiB of disk for the values of frozen nodes."""
COMPLETE = "complete"
"""A checkpoint has this file once all its others are whole."""
SCHEDULES = {"constant": "constant_with_warmup", "linear": "linear", "cosine": "cosine"}


def train(
    spec: Spec,
    folder: Path,
    resume: bool = False,
    console: Console | None = None,
    watch: int = 0,
    cache: float = CACHE,
) -> Run:
    """Train every stage of a spec into a run folder; a finished stage is not repeated. `watch` answers a few held-out
    rows every so many steps. The values of frozen nodes are kept on disk, in at most `cache` GiB; with 0 they are not.

    Raises:
        AssemblerError: the spec has problems or no stages, the folder is in use, the spec is not the run's, a weight
            moved that should not or did not that should, or the loss is no longer a number.
    """
    console = console or Console()
    run = Run(folder)
    _admit(run, spec, resume)
    with console.status("weights") as status:
        graph = fetched_graph(spec, lambda source: status.update(f"weights of {source}"))
    with run.lock():
        _admit(run, spec, resume)  # once more: another process may have been here before the lock was ours
        Process.this().write(run.process_path)
        if resume:
            run.check_weights(graph)
            run.recall_bad(graph)
        else:
            run.create(graph)
        _train(run, graph, console, watch, cache)
    return run


def _train(run: Run, graph: Graph, console: Console, watch: int, cache: float) -> None:
    """Every stage that is not done yet."""
    assembly = compile_graph(graph).to("cuda" if torch.cuda.is_available() else "cpu")
    console.print(freeze_table(graph, assembly))
    learn, _ = split(graph)
    if graph.bad:
        run.keep_bad(graph)
        console.print(
            f"{len(graph.bad):,} rows cannot be read and are left out: {run.skipped_path} says why", markup=False
        )
    learn, batches = tempered(graph, learn), Batches(graph)
    stages = graph.document.stages
    done: list[str] = []
    again = sum(stage.steps * stage.batch for stage in stages) > len(learn)
    for index, stage in enumerate(stages):
        names = learned_so_far(stages, index)
        if run.learned(stage.name).is_file():
            load_learned(assembly, run.learned(stage.name))
            console.print(f"stage {stage.name}: done before")
        else:
            more = [Watch(run, graph, assembly, stage.name, watch)] if watch else []
            _run_stage(run, graph, assembly, stage, names, learn, batches, done, console, more, cache * again)
        done.append(stage.name)


def learned_so_far(stages: Sequence[Stage], index: int) -> list[str]:
    """Nodes and adapters that some stage up to `index` trains."""
    return list(dict.fromkeys(name for stage in stages[: index + 1] for name in stage.train))


def _admit(run: Run, spec: Spec, resume: bool) -> None:
    """Refuse what cannot be trained, or not in this folder."""
    graph = check(spec).require()
    if not graph.document.stages:
        raise AssemblerError(f"{spec.path}: there are no `stages`; add one, such as {{name: align, train: [bridge]}}")
    for name, part in graph.adapters.items():
        if part.weights == "random" and (why := part.unprepared()):
            command = f"assembler adapters prepare {spec.path} {name} --out FOLDER"
            raise AssemblerError(f"{spec.path}: adapters.{name}: {why}; run `{command}` and set `weights: file:FOLDER`")
    if not run.spec_path.exists():
        if resume:
            raise AssemblerError(f"{run.folder} is not a run yet, so there is nothing to resume; leave --resume out")
        if run.folder.exists() and any(_foreign(path.name) for path in run.folder.iterdir()):
            raise AssemblerError(f"{run.folder} is not empty and no run; choose another folder")
        return
    if not resume:
        raise AssemblerError(f"{run.folder} is a run already; add --resume to go on, or choose another folder")
    if run.spec().document != spec.document:
        raise AssemblerError(
            f"{run.spec_path} differs from {spec.path}; resume with the run's own, or choose another folder"
        )


def _foreign(name: str) -> bool:
    """Whether a file is none that a run leaves when it is killed before it has its spec."""
    return name not in (".lock", "run.json", "process.json", "train.log") and not name.startswith(
        (".run.json.", ".spec.yaml.", ".process.json.")
    )


def freeze_table(graph: Graph, assembly: Assembly) -> Table:
    """Which node and adapter learns in which stage."""
    table = Table(title="what learns", title_justify="left")
    table.add_column("part")
    table.add_column("parameters", justify="right")
    for stage in graph.document.stages:
        table.add_column(stage.name)
    sizes = {key: parameter.numel() for key, parameter in assembly.named_parameters()}
    pieces = [name for name in learned_so_far(graph.document.stages, len(graph.document.stages)) if "." in name]
    for name in [*assembly.nodes, *pieces, *assembly.adapters]:
        count = sum(sizes[key] for key in assembly.of(name))
        cells = [f"lr {stage.lr:g}" if name in stage.train else "frozen" for stage in graph.document.stages]
        table.add_row(name, f"{count:,}", *cells)
    return table


def _run_stage(
    run: Run,
    graph: Graph,
    assembly: Assembly,
    stage: Stage,
    names: list[str],
    rows: Sequence[Any],
    batches: Batches,
    done: list[str],
    console: Console,
    more: list[Watch],
    cache: float,
) -> None:
    for left in ("forward", "_original_forward", "_is_accelerate_prepared"):
        vars(assembly).pop(left, None)  # accelerate's, of the stage before, whose precision would be this one's too
    assembly.only(stage.objectives)
    assembly.consistency = stage.consistency
    assembly.train_only(stage.train)
    features = kept(graph, assembly, batches, rows, int(cache * GIB), stage.precision) if cache else None
    folder = run.stage(stage.name)
    checkpoint = _last_checkpoint(folder)
    step = int(checkpoint.name.rpartition("-")[2]) if checkpoint else 0
    run.trim(done, stage.name, step)
    metrics = Metrics(run, stage.name, step, before=sum(s.steps for s in graph.document.stages[: len(done)]))
    bar, stop = Bar(stage, console), Stop()
    watchers: list[TrainerCallback] = [*more, metrics, bar, stop, Completed()]
    watchers += [] if checkpoint else [Moved(assembly, stage.name, console)]
    trainer = StageTrainer(
        model=assembly,
        args=_arguments(folder, stage, graph.document.seed),
        train_dataset=rows,  # type: ignore[arg-type]  # a sequence is what it takes
        data_collator=features or batches,
        callbacks=watchers,
    )
    trainer.names = names
    trainer.remove_callback(_default_printer(trainer))
    # Closed whatever happens, since a bar left open hides the cursor.
    with metrics.board, bar.progress, stop.listening():
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    if features:
        made, found = f"{features.made:,} computed", f"{features.found:,} read from the cache"
        console.print(f"values of {', '.join(features.nodes)}: {made}, {found}")
    if trainer.state.global_step < stage.steps:
        raise AssemblerError(
            f"stopped at step {trainer.state.global_step} of stage {stage.name}; go on with "
            f"`assembler train {run.spec_path} --run {run.folder} --resume`"
        )
    save_learned(assembly, names, run.learned(stage.name))
    for old in folder.glob("checkpoint-*"):
        shutil.rmtree(old)


def _arguments(folder: Path, stage: Stage, seed: int) -> TrainingArguments:
    return TrainingArguments(
        output_dir=str(folder),
        max_steps=stage.steps,
        per_device_train_batch_size=stage.batch,
        learning_rate=stage.lr,
        warmup_steps=stage.warmup,
        lr_scheduler_type=SCHEDULES[stage.schedule],
        weight_decay=stage.weight_decay,
        max_grad_norm=stage.clip,
        bf16=stage.precision == "bf16",
        save_strategy="steps",
        save_steps=stage.save_every,
        save_total_limit=2,
        logging_steps=1,
        logging_nan_inf_filter=False,
        disable_tqdm=True,
        report_to="none",
        remove_unused_columns=False,
        use_cpu=not torch.cuda.is_available(),
        seed=seed,
        data_seed=seed,
    )


def _default_printer(trainer: Trainer) -> type[TrainerCallback]:
    from transformers.trainer_callback import PrinterCallback

    return PrinterCallback


def _last_checkpoint(folder: Path) -> Path | None:
    """The newest whole checkpoint; what a kill left half-written is removed."""
    found = sorted(folder.glob("checkpoint-[0-9]*"), key=lambda path: int(path.name.rpartition("-")[2]))
    for path in found:
        if not (path / COMPLETE).is_file():
            shutil.rmtree(path)
    whole = [path for path in found if path.exists()]
    return whole[-1] if whole else None


class StageTrainer(Trainer):
    """A Trainer whose checkpoints hold what was learned, as safetensors, and not the frozen weights."""

    names: list[str] = []

    def _save_checkpoint(self, *arguments: Any, **knobs: Any) -> None:
        with told(f"a checkpoint could not be written in {self.args.output_dir}; make room and go on with --resume"):
            super()._save_checkpoint(*arguments, **knobs)

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        assert output_dir is not None
        save_learned(self.model, self.names, Path(output_dir) / LEARNED)  # type: ignore[arg-type]

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        load_learned(self.model, Path(resume_from_checkpoint) / LEARNED)  # type: ignore[arg-type]


class Completed(TrainerCallback):
    """Marks a checkpoint as whole after everything in it is written."""

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        (Path(str(args.output_dir)) / f"checkpoint-{state.global_step}" / COMPLETE).touch()


class Stop(TrainerCallback):
    """On SIGTERM the step is finished, a checkpoint is written and the run ends there."""

    asked = False

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Take SIGTERM so until the block ends; signals reach a process's main thread alone."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = signal.signal(signal.SIGTERM, self._ask)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, before)

    def _ask(self, number: int, frame: Any) -> None:
        self.asked = True

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if self.asked:
            control.should_save = control.should_training_stop = True


class Metrics(TrainerCallback):
    """One line of JSON a step, and the same for TensorBoard; a loss that is no number ends the run."""

    def __init__(self, run: Run, stage: str, step: int, before: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.run, self.stage, self.before = run, stage, before
        self.board = SummaryWriter(str(run.folder / "tensorboard"), purge_step=before + step + 1)

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: Any = None, **_: Any
    ) -> None:
        if not state.is_world_process_zero or "loss" not in (logs or {}):
            return
        row = {"stage": self.stage, "step": state.global_step, "loss": logs["loss"], "lr": logs["learning_rate"]}
        row["grad_norm"] = float(logs["grad_norm"]) if "grad_norm" in logs else None
        row["time"] = round(time.time(), 3)
        if not math.isfinite(row["loss"]):
            raise AssemblerError(
                f"stage {self.stage}: the loss is {row['loss']} at step {state.global_step}; lower `lr` or `clip`"
            )
        with self.run.metrics_path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        for key in ("loss", "lr"):
            self.board.add_scalar(f"{self.stage}/{key}", row[key], self.before + state.global_step)


class Bar(TrainerCallback):
    """A progress bar with loss, samples a second and time left."""

    def __init__(self, stage: Stage, console: Console) -> None:
        self.stage = stage
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("loss {task.fields[loss]}"),
            TextColumn("{task.fields[rate]} samples/s"),
            TimeRemainingColumn(),
            console=console,
        )

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        fields: dict[str, Any] = {"loss": "-", "rate": "-"}
        start = state.global_step
        self.task = self.progress.add_task(f"stage {self.stage.name}", total=state.max_steps, completed=start, **fields)

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: Any = None, **_: Any
    ) -> None:
        speed = self.progress.tasks[0].speed
        rate = "-" if speed is None else f"{speed * self.stage.batch:.1f}"
        fields: dict[str, Any] = {"loss": f"{logs['loss']:.4f}"} if "loss" in (logs or {}) else {}
        self.progress.update(self.task, completed=state.global_step, rate=rate, **fields)


class Moved(TrainerCallback):
    """After the first step that has a learning rate: exactly the weights that learn, and have a gradient, moved."""

    def __init__(self, assembly: Assembly, stage: str, console: Console) -> None:
        self.assembly, self.stage, self.console = assembly, stage, console
        self.before: dict[str, list[int]] = {}
        self.still: set[str] = set()
        self.checked = False

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, optimizer: Any = None, **_: Any
    ) -> None:
        if self.checked or optimizer.param_groups[0]["lr"] == 0:
            return
        unreached = [k for k, p in self.assembly.named_parameters() if p.requires_grad and p.grad is None]
        if unreached:
            raise AssemblerError(
                f"stage {self.stage}: the loss does not reach {unreached[0]}; take its part out of `train`, or wire it"
            )
        self.still = {k for k, p in self.assembly.named_parameters() if p.requires_grad and not p.grad.any()}  # type: ignore[union-attr]
        self.before = {key: bits(parameter) for key, parameter in self.assembly.named_parameters()}

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if self.checked or not self.before:
            return
        self.checked = True
        moved = {key for key, p in self.assembly.named_parameters() if bits(p) != self.before[key]}
        learning = {key for key, p in self.assembly.named_parameters() if p.requires_grad}
        wrong = sorted(moved - learning) + sorted(learning - moved - self.still)
        if wrong:
            what = "is frozen and moved" if wrong[0] in moved else "learns and did not move"
            raise AssemblerError(f"stage {self.stage}: {wrong[0]} {what} in the first step; the run is stopped")
        frozen = len(self.before) - len(learning)
        idle = f", {len(self.still - moved)} have no gradient yet" if self.still - moved else ""
        self.console.print(f"checked: {len(moved)} tensors moved{idle}, {frozen} frozen ones did not")


def bits(tensor: Tensor) -> list[int]:
    """Checksums of 64 stretches of a tensor's very bits, quick enough to take of every weight.

    One sum would not do: the first step of Adam moves every number equally far, and as many may go up as down.
    """
    kinds: dict[int, torch.dtype] = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    flat = tensor.detach().contiguous().view(kinds[tensor.element_size()]).flatten()
    return torch.stack([part.sum(dtype=torch.int64) for part in flat.tensor_split(64)]).tolist()

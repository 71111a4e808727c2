"""The command line. What needs torch is imported by the command that uses it, so that `validate` starts at once."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args

import typer

from assembler.adapters.commands import app as adapters_app
from assembler.bundle.manifest import Precision
from assembler.commanding import command_on, print_json
from assembler.errors import AssemblerError
from assembler.runs import Run
from assembler.spec import Spec, override, read

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    help="Draw a multimodal model as a graph; train it in torch; serve it from ONNX.",
    epilog="Start with: assembler validate exports/gallery/digits.yaml",
)
SpecPath = Annotated[Path, typer.Argument(metavar="SPEC", help="The YAML file of the graph.", show_default=False)]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]
Sets = Annotated[
    list[str], typer.Option("--set", default_factory=list, metavar="KEY=VALUE", help="Such as stages.align.steps=50.")
]
F = TypeVar("F", bound=Callable[..., Any])


command = command_on(app)
app.add_typer(adapters_app, name="adapters")


def _spec(path: Path, sets: Sequence[str], run: Path | None = None) -> Spec:
    """The spec with its settings; that of the run `run` starts from where the run's first spec stood."""
    own = run is not None and path.resolve() == Run(run).spec_path.resolve()
    spec = Run(run).spec() if run is not None and own else read(path)
    for setting in sets:
        if spec.document is None:
            break
        spec = override(spec, setting)
    return spec


@command("assembler validate exports/gallery/digits.yaml --fix")
def validate(
    spec: SpecPath,
    as_json: Json = False,
    fix: Annotated[bool, typer.Option("--fix", help="Apply every fix there is and save the spec.")] = False,
    target: Annotated[Literal["onnx"] | None, typer.Option(help="Also say what could not be exported to it.")] = None,
) -> None:
    """Check every node, wire, slot and stage; fetches nothing and loads no weights."""
    from assembler.check import check
    from assembler.fixes import apply_fixes

    loaded = read(spec)
    done: list[str] = []
    if fix and loaded.document is not None:
        loaded, done = apply_fixes(loaded)
        if done:
            loaded.save()
    graph = check(loaded)
    if target is not None and not graph.problems:
        from assembler.exportable import onnx_problems

        graph.problems = onnx_problems(graph)
    if as_json:
        wires = {str(edge): str(graph.values.get(edge.source) or "unknown") for edge in graph.edges}
        problems = [problem.as_dict() for problem in graph.problems]
        print_json({"ok": not problems, "fixed": done, "problems": problems, "wires": wires})
    else:
        for title in done:
            typer.echo(f"fixed: {title}")
        for problem in graph.problems:
            typer.echo(problem.render(str(spec)))
        for edge in graph.edges if not graph.problems else []:
            typer.echo(f"{edge}   {graph.values.get(edge.source) or 'unknown'}")
        count = len(graph.problems)
        typer.echo(f"{count} problem{'s' if count != 1 else ''}" if count else f"{spec}: good")
    raise typer.Exit(1 if graph.problems else 0)


@command("assembler schema > spec.schema.json")
def schema() -> None:
    """Print the JSON schema of specs, with every part that is installed."""
    from assembler.schema import spec_schema

    print_json(spec_schema())


@command("assembler parts --family encoder")
def parts(
    family: Annotated[str | None, typer.Option(help="Only one family: encoder, projector, adapter...")] = None,
    as_json: Json = False,
) -> None:
    """List the parts that are installed, here and from other packages."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from assembler import registry

    found = {name: cls for name, cls in registry.parts().items() if family in (None, registry.family(name))}
    if not found:
        raise AssemblerError(f"no part is of the family {family}; leave --family out to see all")
    about = {name: " ".join((cls.__doc__ or "").split("\n\n")[0].split()) for name, cls in found.items()}
    if as_json:
        print_json({n: {"about": about[n], "schema": cls.model_json_schema()} for n, cls in found.items()})
        return
    table = Table("part", "what it computes")
    for name, text in about.items():
        table.add_row(name, escape(text))
    Console().print(table)


@command("assembler fetch exports/gallery/digits.yaml")
def fetch(spec: SpecPath) -> None:
    """Bring every weight that the spec names to this computer."""
    from rich.console import Console

    from assembler.check import check
    from assembler.fetching import fetch_weights

    graph = check(spec).require()
    with Console(stderr=True).status("weights") as status:
        found = fetch_weights(graph, lambda source: status.update(f"weights of {source}"))
    for source, path in found.items():
        typer.echo(f"{source}: {path}")


@command("assembler data exports/gallery/digits.yaml --preview")
def data(
    what: Annotated[str, typer.Argument(metavar="SPEC|fetch", help="Whose data, or `fetch`.", show_default=False)],
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="After fetch: a set; none: list them.")] = None,
    preview: Annotated[bool, typer.Option("--preview", help="Show samples as the model will see them.")] = False,
    count: Annotated[int, typer.Option("--count", min=1, max=100, help="How many of them.")] = 4,
    out: Annotated[Path, typer.Option("--out", help="The page with their pictures.")] = Path("preview.html"),
    as_json: Json = False,
) -> None:
    """Say what a spec learns from and show samples of it; or, with `fetch`, bring a ready-made set of real data here.

    `assembler data fetch` lists the ready-made sets, `assembler data fetch tuxpaint` brings one and prepares it.
    """
    from assembler.data import describe, fetch_set, list_sets

    if what == "fetch":
        return list_sets() if name is None else fetch_set(name)
    if name is not None:
        raise AssemblerError(
            f"`assembler data SPEC` takes no {name}; a ready-made set is brought by `data fetch {name}`"
        )
    return describe(Path(what), count if preview else 0, out, as_json)


@command("assembler summary exports/gallery/digits.yaml --json")
def summary(spec: SpecPath, sets: Sets, as_json: Json = False) -> None:
    """Count parameters and forecast memory and FLOPs, without loading a weight."""
    from assembler.check import check
    from assembler.forecast import summary as summarise

    report = summarise(check(_spec(spec, sets)))
    if as_json:
        print_json(report)
    else:
        from assembler.tables import print_summary

        print_summary(report)


@command("assembler sites exports/gallery/digits.yaml talk")
def sites(
    spec: SpecPath,
    node: Annotated[str, typer.Argument(metavar="NODE", help="A node that hosts adapters.", show_default=False)],
    as_json: Json = False,
) -> None:
    """Show the canonical sites of a node, which adapters are put into by name, as a tree with shapes."""
    from assembler.tables import guesses_of_node, print_sites, sites_of_node

    found = sites_of_node(spec, node)
    if as_json:
        print_json(found)
    else:
        print_sites(node, found, guesses_of_node(spec, node))


@command("assembler train exports/gallery/digits.yaml --run exports/runs/digits --set stages.align.steps=50")
def train(
    spec: SpecPath,
    run: Annotated[Path, typer.Option("--run", help="Folder of the run.", show_default=False)],
    sets: Sets,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint.")] = False,
    watch: Annotated[int, typer.Option(min=0, help="Answer four held-out rows every so many steps; 0: never.")] = 0,
    cache: Annotated[bool, typer.Option(help="Keep the values of frozen nodes on disk.")] = True,
    cache_gib: Annotated[float, typer.Option(min=0.001, help="Disk for them, GiB, shared by all runs.")] = 10.0,
) -> None:
    """Train the stages of a spec; a killed run goes on with --resume as if nothing had happened."""
    from assembler.check import check

    loaded = _spec(spec, sets, run if resume else None)
    check(loaded).require()
    from assembler.train import train as run_stages

    run_stages(loaded, run, resume, watch=watch, cache=cache_gib if cache else 0)
    typer.echo(f"next: assembler eval {run}")


@command("assembler eval exports/runs/digits --json")
def eval_(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run.", show_default=False)],
    as_json: Json = False,
    limit: Annotated[int | None, typer.Option(min=1, help="At most this many held-out rows.")] = None,
    bundle: Annotated[Path | None, typer.Option(help="Let this bundle answer instead of torch.")] = None,
    node: Annotated[str | None, typer.Option(help="Whose answers; by default the first node's that answers.")] = None,
) -> None:
    """Score a run, or its bundle, on the rows that were held out."""
    from assembler.tables import print_scores, scored

    report = scored(run, limit, bundle, quiet=as_json, node=node)
    if as_json:
        print_json(report)
    else:
        print_scores(report)


def _precision_words(text: str) -> str:
    """The option as it is, if every word in it is a precision."""
    for word in (item.rpartition("=")[2].strip() for item in text.split(",")):
        if word not in get_args(Precision):
            raise typer.BadParameter(f"{word or 'nothing'} is none; there are {', '.join(get_args(Precision))}")
    return text


@command("assembler export exports/runs/digits --out exports/bundles/digits --precision int8")
def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run.", show_default=False)],
    out: Annotated[Path, typer.Option("--out", help="Folder of the bundle, new.", show_default=False)],
    precision: Annotated[
        str,
        typer.Option(
            callback=_precision_words,
            help="Of the decoder: fp32, fp16, bf16, int8, int8_dynamic, int4; or a graph: talk=int4,photo=fp16. "
            "cache=int8 holds keys and values in 8 bits.",
        ),
    ] = "fp32",
    max_kl: Annotated[
        float | None, typer.Option(min=0, help="Nats a token it may drift; by default by precision.")
    ] = None,
    switch: Annotated[
        str, typer.Option(metavar="NAME,...", help="LoRAs of the LM that stay apart, for each answer to have one.")
    ] = "",
    as_json: Json = False,
) -> None:
    """Write a trained run as an ONNX bundle with its parity report."""
    if out.exists():
        raise AssemblerError(f"{out} exists already; choose another folder or remove it")
    from assembler.tables import exported, print_parity

    names = [name.strip() for name in switch.split(",") if name.strip()]
    report = exported(run, out, precision, max_kl, quiet=as_json, switch=names)
    if as_json:
        print_json(report)
    else:
        print_parity(report, out)


@command('assembler ask exports/bundles/digits --image seven.png --prompt "Which digit is this?"')
def ask(
    bundle: Annotated[
        Path, typer.Argument(metavar="BUNDLE", help="Folder of a bundle, or a GGUF file.", show_default=False)
    ],
    image: Annotated[
        list[str], typer.Option(default_factory=list, metavar="[INPUT=]FILE", help="A picture for an input.")
    ],
    audio: Annotated[
        list[str], typer.Option(default_factory=list, metavar="[INPUT=]FILE", help="A sound for an input.")
    ],
    video: Annotated[
        list[str], typer.Option(default_factory=list, metavar="[INPUT=]PATH", help="A folder of frames, or a GIF.")
    ],
    points: Annotated[
        list[str], typer.Option(default_factory=list, metavar="[INPUT=]FILE", help="A cloud or mesh for an input.")
    ],
    prompt: Annotated[
        list[str], typer.Option(default_factory=list, metavar="[NAME=]TEXT", help="Words for a text of the prompt.")
    ],
    max_new_tokens: Annotated[int | None, typer.Option(min=1, help="Longest answer.")] = None,
    adapter: Annotated[str | None, typer.Option(metavar="NAME", help="A LoRA of the bundle to answer with.")] = None,
) -> None:
    """Ask a bundle about files; needs onnxruntime and no torch."""
    from assembler.asking import ask as answer

    files = {"image": image, "audio": audio, "video": video, "points": points}
    typer.echo(answer(bundle, files, prompt, max_new_tokens, adapter))


@command("assembler ui exports/gallery/digits.yaml --port 8600")
def ui(
    spec: Annotated[Path | None, typer.Argument(metavar="[SPEC]", help="A spec to open.", show_default=False)] = None,
    workspace: Annotated[Path, typer.Option(help="The one folder that the page reads and writes.")] = Path("exports"),
    address: Annotated[str, typer.Option(help="Another than this computer's wants the token it prints.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8501,
) -> None:
    """Open the page: draw a model, train it, talk to it, take it away."""
    from ui.launch import serve

    serve(spec, workspace, address, port)


@command("assembler serve exports/bundles/digits --port 8000")
def serve(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="Folder of a bundle.", show_default=False)],
    host: Annotated[str, typer.Option(help="Address to listen on; another than loopback needs --keys.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on.")] = 8000,
    keys: Annotated[Path | None, typer.Option(help="File with one API key a line.")] = None,
    provider: Annotated[
        list[str] | None, typer.Option(help="onnxruntime provider, such as CUDAExecutionProvider.")
    ] = None,
    limit: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="A limit, such as new_tokens=256.")
    ] = None,
    allow_host: Annotated[list[str] | None, typer.Option(help="A host that pictures may be fetched from.")] = None,
) -> None:
    """Serve a bundle behind OpenAI's chat interface; needs no torch."""
    from assembler.serving.limits import read_limits
    from assembler.serving.run import serve as run

    run(bundle, host, port, read_limits(limit or [], allow_host or []), keys, provider)


@command("assembler deploy exports/bundles/digits --triton models")
def deploy(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="Folder of a bundle.", show_default=False)],
    triton: Annotated[Path | None, typer.Option(help="Write a model repository of Triton here.")] = None,
    kubernetes: Annotated[Path | None, typer.Option(help="Write a Dockerfile and Kubernetes objects here.")] = None,
    image: Annotated[str, typer.Option(help="What the image is called in those objects.")] = "bundle:latest",
) -> None:
    """Lay a bundle out for other servers; Ray Serve takes it as it is, by assembler.deploy.ray_serve:app."""
    if triton is None and kubernetes is None:
        raise AssemblerError("say where to: --triton DIR or --kubernetes DIR")
    if triton is not None:
        from assembler.deploy.triton import write_repository

        for name in write_repository(bundle, triton):
            typer.echo(triton / name)
    if kubernetes is not None:
        from assembler.deploy.kubernetes import write_kubernetes

        write_kubernetes(bundle, kubernetes, image)
        typer.echo(kubernetes / "bundle.yaml")


def main() -> None:
    """Entry point of the `assembler` script."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")
    app()


if __name__ == "__main__":
    main()

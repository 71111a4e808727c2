"""The one matrix that every registered part runs through, by being registered: here or in another package."""

import re
from pathlib import Path

import pytest
import torch
from torch import nn

from assembler.adapters.book import adapters_of
from assembler.bundle.graphs import export_graph
from assembler.bundle.parity import compare
from assembler.check import check
from assembler.compile import Assembly, compile_graph
from assembler.export import Branch
from assembler.forecast import drawn_sample, fake_batch
from assembler.graph import Graph
from assembler.part import AdapterPart, DatasetPart
from assembler.ragged import Ragged, parted
from assembler.registry import parts
from assembler.runs import load_learned, save_learned
from assembler.schema import spec_schema
from assembler.spec import Document, Spec

PARTS = parts()
EXAMPLES = [
    pytest.param(name, *example, id=f"{name}-{index}")
    for name, cls in PARTS.items()
    for index, example in enumerate(cls.examples())
]
every_part = pytest.mark.parametrize("name", list(PARTS))
every_example = pytest.mark.parametrize(("name", "tree", "parameters"), EXAMPLES)


def graph_of(tree: dict, seed: int = 0) -> Graph:
    tree = {"assembler": 1, "seed": seed, **tree}
    return check(Spec(Path("example.yaml").resolve(), Document.model_validate(tree), tree))


def batch_of(graph: Graph, size: int, seed: int = 0) -> dict[str, torch.Tensor]:
    """Random samples in the shapes on the wires, with real rows of features in the prompts."""
    torch.manual_seed(seed)
    batch = fake_batch(graph, size, text_tokens=8)
    for node in graph.samples:
        batch.update(drawn_sample(graph, node, size))
    for key, tensor in batch.items():
        if tensor.is_floating_point():
            batch[key] = torch.randn_like(tensor)
        elif key.endswith("_input_ids"):
            batch[key] = torch.where(tensor == 0, torch.randint(3, 200, tensor.shape), tensor)
    return batch


def value_of(assembly: Assembly, batch: dict[str, torch.Tensor], node: str) -> torch.Tensor:
    """The node's value, with zeros where it is padding."""
    return shown(assembly.values(batch)[node])


def shown(value: object) -> torch.Tensor:
    """A value as one tensor: what an objective gives beside its loss, zeros for padding."""
    if isinstance(value, dict):
        return next(x for key, x in value.items() if key != "loss")
    plain, mask = parted(value)
    return plain if mask is None else torch.where(mask.unsqueeze(-1), plain, 0)


def host_of(graph: Graph) -> str:
    """The node whose value shows the part: itself, or the host it is put into."""
    return graph.adapters["part"].host if "part" in graph.adapters else "part"


def assembled(tree: dict, seed: int = 0) -> tuple[Graph, Assembly]:
    graph = graph_of(tree, seed)
    if not any(part.ports() or part.objective for part in graph.parts.values()):
        pytest.skip("it has no module: a law of modules does not speak of it")
    return graph, compile_graph(graph)


class Alone(nn.Module):
    """One node of an assembly: the values on its wires -> its own, as tensors and masks."""

    def __init__(self, assembly: Assembly, node: str, values: dict[str, object]) -> None:
        super().__init__()
        (step,) = (step for step in assembly.plan if step.node == node)
        self.node, self.inputs = node, {}
        for name in (*sorted(step.needs), *sorted(set(step.extras) - step.targets)):
            plain, mask = parted(values[name])
            self.inputs |= {name: plain} if mask is None else {name: plain, f"{name}_mask": mask}
        self.part = Assembly(
            {node: assembly.nodes[node]}, [step], frozenset(n for n, x in values.items() if isinstance(x, Ragged))
        )

    def forward(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        value = self.part.values(dict(zip(self.inputs, tensors, strict=True)))[self.node]
        return tuple(value) if isinstance(value, Ragged) else (value,)


@every_part
def test_it_brings_an_example(name):
    assert PARTS[name].examples(), f"{name} has no examples(); add one small spec, so that the matrix can run it"


@pytest.fixture(scope="module")
def schema() -> dict:
    return spec_schema()


@every_part
def test_its_docstring_gives_its_parameters_and_its_schema_describes_every_key(name, schema):
    cls = PARTS[name]
    assert re.search(r"Parameters: \S", cls.__doc__ or ""), f"{name}: the docstring has no `Parameters:` formula"
    assert name in schema["$defs"]


@every_example
def test_its_examples_have_no_problems(name, tree, parameters):
    assert [problem.message for problem in graph_of(tree).problems] == []


@every_example
def test_the_shape_rule_tells_the_real_shape(name, tree, parameters):
    graph, assembly = assembled(tree)
    if isinstance(PARTS[name], AdapterPart):
        return
    node = host_of(graph)
    rule = graph.values[node]
    with torch.no_grad():
        real = value_of(assembly, batch_of(graph, 3), node)
    if rule.kind == "logits":
        assert real.shape[-1] == rule["classes"]
    else:
        assert tuple(real.shape) == (3, *rule.shape[1:])


@every_example
def test_the_meta_device_has_the_same_parameters(name, tree, parameters):
    graph, assembly = assembled(tree)
    meta = compile_graph(graph, device="meta")
    shapes = [{key: x.shape for key, x in model.named_parameters()} for model in (assembly, meta)]
    assert shapes[0] == shapes[1]


@every_example
def test_its_formula_gives_its_parameters(name, tree, parameters):
    if parameters is None:
        pytest.skip("its formula is that of the model it names")
    _, assembly = assembled(tree)
    sizes = {key: p.numel() for key, p in assembly.named_parameters()}
    assert sum(sizes[key] for key in assembly.of("part")) == parameters


@every_example
def test_gradients_reach_exactly_what_learns(name, tree, parameters):
    graph, assembly = assembled(tree)
    learning = assembly.of("part")
    if not learning:
        pytest.skip("it has nothing to learn")
    assembly.train_only(["part"])
    optimizer = torch.optim.SGD([p for p in assembly.parameters() if p.requires_grad], lr=0.1)
    batch, reached = batch_of(graph, 3), set()
    for _ in range(2):  # what starts at zero passes a gradient on in the second step
        values = assembly.values(batch)
        value = shown(values[host_of(graph)]).float()
        torch.manual_seed(1)
        torch.stack([(value * torch.randn_like(value)).sum(), *assembly.losses(values)]).sum().backward()
        reached |= {key for key, p in assembly.named_parameters() if p.grad is not None}
        optimizer.step()
    assert reached <= set(learning)
    # A part that wraps a named model may stop before that model's last layers; any other uses all it has.
    assert reached if parameters is None else reached == set(learning)


@every_example
def test_the_same_seed_gives_the_same_model_and_another_seed_another(name, tree, parameters):
    graph, assembly = assembled(tree)
    twin, other = compile_graph(graph), compile_graph(graph_of(tree, seed=1))
    batch = batch_of(graph, 2)
    outputs = [value_of(model, batch, host_of(graph)) for model in (assembly, twin, other)]
    assert torch.equal(outputs[0], outputs[1]) and not torch.equal(outputs[0], outputs[2])


@every_example
def test_what_it_learned_is_saved_and_loaded_bit_for_bit(name, tree, parameters, tmp_path):
    graph, assembly = assembled(tree)
    with torch.no_grad():
        for key, parameter in assembly.named_parameters():
            if key in assembly.of("part"):
                parameter.add_(torch.randn_like(parameter))
    save_learned(assembly, ["part"], tmp_path / "learned.safetensors")
    other = compile_graph(graph)
    load_learned(other, tmp_path / "learned.safetensors")
    batch = batch_of(graph, 2)
    node = host_of(graph)
    with torch.no_grad():
        assert torch.equal(value_of(assembly, batch, node), value_of(other, batch, node))


@every_example
def test_a_sample_does_not_depend_on_the_others_in_its_batch(name, tree, parameters):
    graph, assembly = assembled(tree)
    if any("input_ids" in part.extras for part in graph.parts.values()) and graph.edges:
        pytest.skip("a prompt names its rows of the batch's features, so a batch is not cut by rows")
    batch, node = batch_of(graph, 4), host_of(graph)
    with torch.no_grad():
        whole = value_of(assembly, batch, node)
        first = value_of(assembly, {key: tensor[:2] for key, tensor in batch.items()}, node)
    torch.testing.assert_close(whole[:2], first, rtol=1e-4, atol=1e-5)


@every_example
def test_an_untrained_adapter_leaves_its_host_bit_exact(name, tree, parameters):
    if not issubclass(PARTS[name], AdapterPart) or not PARTS[name].identity:
        pytest.skip("it is no adapter, or none that starts as the identity")
    graph, assembly = assembled(tree)
    batch, node = batch_of(graph, 2), host_of(graph)
    with torch.no_grad():
        adapted = value_of(assembly, batch, node)
        adapters_of(assembly.nodes[node]).activate("")
        assert torch.equal(value_of(assembly, batch, node), adapted)


@every_example
def test_merging_an_adapter_keeps_what_the_host_computes(name, tree, parameters):
    if not issubclass(PARTS[name], AdapterPart):
        pytest.skip("it is no adapter")
    graph, assembly = assembled(tree)
    with torch.no_grad():
        for key, parameter in assembly.named_parameters():
            if key in assembly.of("part"):
                parameter.add_(0.1 * torch.randn_like(parameter))
        batch, node = batch_of(graph, 2), host_of(graph)
        before = value_of(assembly, batch, node)
        graph.adapters["part"].merge(assembly.nodes[node], "part")
        torch.testing.assert_close(value_of(assembly, batch, node), before, rtol=1e-4, atol=1e-5)


@every_example
def test_it_exports_to_onnx_with_parity(name, tree, parameters, tmp_path):
    """A projector by itself: what it reads has its own turn here, and bundles of drawn pairs hold both in one graph."""
    import onnxruntime

    graph, assembly = assembled(tree)
    node = host_of(graph)
    if graph.parts[node].objective:
        pytest.skip("what gives a loss is exported by the bundle, which has its own tests")
    batch = batch_of(graph, 3)
    with torch.no_grad():
        values = assembly.values(batch)
    reference, mask = parted(values[node])
    if name.startswith("projector."):
        module = Alone(assembly, node, values)
        inputs = module.inputs
    else:
        module = Branch(graph, assembly, node)
        inputs = {key: batch[key] for key in module.names}
    outputs = ["out"] if mask is None else ["out", "mask"]
    free = {key: {0: "batch"} for key in inputs}
    export_graph(module, tuple(inputs.values()), tmp_path / "part.onnx", list(inputs), outputs, free)
    session = onnxruntime.InferenceSession(str(tmp_path / "part.onnx"), providers=["CPUExecutionProvider"])
    feeds = {x.name: inputs[x.name].numpy() for x in session.get_inputs()}
    out = session.run(None, feeds)
    if mask is None:
        row = compare(name, reference, out[0])
    else:
        assert (out[1] == mask.numpy()).all()
        row = compare(name, reference[mask], out[0][out[1]])
    assert row["ok"], row


@every_example
def test_what_stands_in_the_padding_changes_nothing_that_is_real(name, tree, parameters):
    graph, assembly = assembled(tree)
    node, batch = host_of(graph), batch_of(graph, 3)
    masked = [key for key in graph.samples if f"{key}_mask" in batch and key in graph.ancestors(node)]
    if not masked:
        pytest.skip("it reads no samples of different lengths")
    other = dict(batch)
    for key in masked:
        padding = ~batch[f"{key}_mask"]
        other[key] = batch[key].masked_fill(padding.view(*padding.shape, *[1] * (batch[key].dim() - 2)), 7)
    with torch.no_grad():
        assert torch.equal(value_of(assembly, batch, node), value_of(assembly, other, node))


@every_example
def test_its_rows_are_of_the_kinds_it_says_and_the_same_each_time(name, tree, parameters):
    if not issubclass(PARTS[name], DatasetPart):
        pytest.skip("it is no dataset")
    from PIL import Image

    from assembler.samples import Cell, Cloud, Sound

    kinds = {"image": Image.Image, "audio": Sound, "points": Cloud, "expression": Cell, "text": str, "label": int}
    dataset = graph_of(tree).dataset
    folder = getattr(dataset, "folder", None)
    if folder is not None and not folder.is_dir():
        pytest.skip(f"assembler data fetch {name.removeprefix('dataset.')} has not been run here")
    fields, rows, again = dataset.fields(Path.cwd()), dataset.rows(Path.cwd()), dataset.rows(Path.cwd())
    assert len(rows) == len(again) > 0
    for row, twin in [(rows[0], again[0]), (rows[len(rows) - 1], again[len(rows) - 1])]:
        assert set(row) == set(twin) == set(fields)
        assert all(isinstance(row[key], kinds[kind]) for key, kind in fields.items())
        assert all(content(row[key]) == content(twin[key]) for key in fields)


def content(sample: object) -> object:
    """A sample as something that can be compared."""
    arrays = {"samples": "rate", "points": "points", "values": "genes"}
    for array, other in arrays.items():
        if hasattr(sample, array):
            return getattr(sample, array).tobytes(), str(getattr(sample, other))
    return sample


@every_example
def test_an_input_reads_the_column_of_its_name(name, tree, parameters):
    graph = graph_of(tree)
    if any(part.ports() or part.objective for part in graph.parts.values()) or issubclass(PARTS[name], DatasetPart):
        pytest.skip("it is no input")
    assert list(graph.columns()) == ["part"]

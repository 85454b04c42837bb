"""Plans as data: what is written is read again as it was, and what is anything else is refused, never run."""

import copy
import json
import math
import operator
import os

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import fx

from unrolled.cells import CELLS
from unrolled.errors import UntraceableError
from unrolled.unroll import forms, native, planned, store, unroll
from unrolled.unroll.graph import DamagedError, Graph
from unrolled.unroll.known import Known

aten = torch.ops.aten


def traced():
    """A graph of every kind of argument."""
    graph = fx.Graph()
    rows, x = graph.placeholder("rows"), graph.placeholder("x")
    own = graph.get_attr("own")
    scaled = graph.call_function(aten.mul.Tensor, (x, 0.1))
    bounded = graph.call_function(aten.clamp.default, (scaled, -math.inf, 3))
    parts = graph.call_function(aten.split_with_sizes.default, (bounded, [1, 2], -1))
    second = graph.call_function(operator.getitem, (parts, 1))
    turned = graph.call_function(aten.view.default, (second, [rows, 2]))
    wide = graph.call_function(aten._to_copy.default, (turned,), {"dtype": torch.float64, "layout": torch.strided})
    fresh = graph.call_function(aten.clone.default, (wide,), {"memory_format": torch.contiguous_format})
    device = graph.call_function(aten.zeros.default, ([2],), {"device": torch.device("cpu"), "pin_memory": False})
    gelu = graph.call_function(aten.gelu.default, (fresh,), {"approximate": "tanh"})
    total = graph.call_function(aten.add.Tensor, (gelu, own), {"alpha": 2})
    none = graph.call_function(aten.mean.dim, (device, None))
    graph.output([total, none, x])
    root = torch.nn.Module()
    root.own = torch.tensor([[1 / 3, math.inf]], dtype=torch.float64)
    return fx.GraphModule(root, graph)


def again(graph):
    return forms.read(forms.graph, forms.write(graph))


def test_a_graph_is_read_as_it_was():
    module, x = traced(), torch.randn(4, 3)
    expected = module(4, x)
    for graph in (Graph.of(module), again(Graph.of(module)), again(again(Graph.of(module)))):
        torch.testing.assert_close(graph(4, x), expected, rtol=0, atol=0)
    module.own = torch.tensor([math.nan])
    assert again(Graph.of(module)).constants[0].isnan().all()


@pytest.mark.parametrize("value", [0.1, 1 / 3, 1e300, 5e-324, -0.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_constants_are_kept_bit_for_bit(value, dtype):
    constant = torch.tensor([[value]], dtype=dtype)
    kept = again(Graph(0, [constant], [], [0])).constants[0]
    assert kept.dtype == dtype
    assert kept.shape == (1, 1)
    assert torch.equal(kept.view(torch.uint8), constant.view(torch.uint8))


@pytest.mark.parametrize("target", [len, torch.relu, os.system, torch.ops.aten.relu])
def test_what_has_no_form_is_refused_by_name(target):
    graph = fx.Graph()
    graph.output([graph.call_function(target, (graph.placeholder("x"),))])
    with pytest.raises(UntraceableError, match="cannot be kept"):
        Graph.of(fx.GraphModule(torch.nn.Module(), graph))


OPERATIONS = [
    *("os.system", "builtins.eval", "eval", "aten.nothing.default", "aten.relu", "aten.relu.default; import os"),
    *("aten.relu.default\n", "aten.__class__.mro", "higher_order.cond.default", "prims.__doc__.x", "getitem ", "mul.x"),
    # Of PyTorch, and with effects: on files, on other values, on generators of random numbers.
    *("aten.from_file.default", "aten.add_.Tensor", "aten.set_.source_Storage", "aten.bernoulli.default"),
    *(
        "aten.rand.default",
        "aten.copy_.default",
        "aten.relu.out",
        "inductor.resize_storage_bytes_.default",
        "",
        "..",
        3,
    ),
]


def node(name, *args, **words):
    return [[1, [], [[name, list(args), words]], [1]]], 0


def value(number):
    return {"value": number}


@pytest.mark.parametrize("name", OPERATIONS)
def test_only_operations_that_compute_are_read(name):
    with pytest.raises(DamagedError):
        forms.read(forms.graph, json.dumps(node(name, value(0))).encode())


ARGUMENTS = [
    node("aten.relu.default"),
    node("aten.relu.default", value(0), value(0)),
    node("aten.relu.default", value(0), self=value(0)),
    node("aten.relu.default", value(0), **{"__import__('os').system('echo')": 1}),
    node("aten.relu.default", value(0), **{"x=exit()\n": 1}),
    node("aten.relu.default", value(1)),
    node("aten.relu.default", value(-1)),
    node("aten.relu.default", value("v0")),
    node("aten.relu.default", value(True)),
    node("aten.relu.default", value(0.0)),
    node("aten.relu.default", {"value": 0, "dtype": "float32"}),
    node("aten.relu.default", {"global": "exit"}),
    node("aten.relu.default", {"dtype": "ops"}),
    node("aten.relu.default", {"dtype": ["float32"]}),
    node("aten.relu.default", {}),
    node("aten.relu.default", "exit()"),
    node("aten.gelu.default", value(0), approximate="'+exit()+'"),
    node("aten.gelu.default", value(0), approximate=3),
    node("aten._to_copy.default", value(0), dtype={"dtype": "float32)\nexit("}),
    node("aten._to_copy.default", value(0), dtype={"dtype": "load"}),
    node("aten._to_copy.default", value(0), device={"device": "cpu'+exit()+'"}),
    node("aten._to_copy.default", value(0), device={"device": "nowhere"}),
    node("aten.view.default", value(0), [1 << 63]),
    node("aten.view.default", value(0), [10**400]),
    node("aten.view.default", value(0), ["1"]),
    node("aten.view.default", value(0), [[1]]),
    node("aten.view.default", value(0)),
    node("aten.add.Tensor", value(0), None),
    node("getitem", value(0), "x"),
    node("getitem", value(0), 1, x=1),
    node("getitem", [1], 1),
    node("mul", 1 << 40, 1 << 40),
    ([[1, [], [], [1]]], 0),
    ([[1, [], [], [-1]]], 0),
    ([[1, [], [], ["v0"]]], 0),
    ([[-1, [], [], []]], 0),
    ([[10**9, [], [], []]], 0),
    ([["1", [], [], []]], 0),
    ([[1, [["float32", [2], [1.0]]], [], [1]]], 0),
    ([[1, [["float32", [-1], []]], [], [1]]], 0),
    ([[1, [["float32", [1], ["1"]]], [], [1]]], 0),
    ([[1, [["load", [1], [1]]], [], [1]]], 0),
    ([[1, [["float32", [1 << 39], [1]]], [], [1]]], 0),
    ([[1, [["int64", [1], [1 << 70]]], [], [1]]], 0),
    ([], 0),
    ([[1, [], [], [0]]], -1),
]


@pytest.mark.parametrize("content", ARGUMENTS, ids=range(len(ARGUMENTS)))
def test_arguments_are_numbers_and_names_of_their_kind(content):
    with pytest.raises(DamagedError):
        forms.read(forms.graph, json.dumps(content).encode())


def test_the_graphs_that_are_refused_differ_from_one_that_is_read():
    graph = forms.read(forms.graph, json.dumps(node("aten.relu.default", value(0))).encode())
    assert graph(torch.tensor([-1.0, 2.0]))[0].tolist() == [0, 2]


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """What the file of a plan holds, for training and without, as parsed JSON."""
    folder = tmp_path_factory.mktemp("kept")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UNROLLED_CACHE", str(folder / "cache"))
        patch.setattr(planned, "_planned", Known())
        cell, x = CELLS["gru"](3, 4), torch.randn(4, 2, 3, requires_grad=True)
        with torch.no_grad():
            unroll(cell, x, backend="native")
        unroll(cell, x, backend="native")[0].sum().backward()
    (path,) = (folder / "cache").glob("*.plan")
    return json.loads(path.read_bytes().partition(b"\n")[2])


def test_a_plan_is_read_as_it_was(kept):
    content = json.dumps(kept, separators=(",", ":")).encode()
    assert forms.write(forms.read(forms.record, content)) == content


def places(tree, at=()):
    """Paths of all parts of a nest of lists and dictionaries."""
    yield at
    if isinstance(tree, list | dict):
        for key, part in tree.items() if isinstance(tree, dict) else enumerate(tree):
            yield from places(part, (*at, key))


NASTY = [
    None,
    True,
    -1,
    1 << 62,
    1 << 80,
    10**400,
    1e400,
    math.nan,
    "",
    "exit()",
    "../../x",
    [],
    {},
    [[]],
    {"value": 9},
]


@given(data=st.data())
def test_a_plan_that_was_changed_anywhere_is_refused_or_read(kept, data):
    """Nothing but DamagedError comes out of a file, and nothing but the package's own objects."""
    changed = copy.deepcopy(kept)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.sampled_from(list(places(changed))[1:]))
        part = changed
        for key in at[:-1]:
            part = part[key]
        if isinstance(part, list) and data.draw(st.booleans()):
            part.pop(at[-1])
        else:
            part[at[-1]] = data.draw(st.sampled_from(NASTY))
    try:
        schedule, _, _ = forms.read(forms.record, json.dumps(changed).encode())
    except DamagedError:
        return
    assert type(schedule.name) is str


@given(data=st.data())
def test_a_plan_that_was_cut_short_is_refused(kept, data):
    content = json.dumps(kept).encode()
    end = data.draw(st.integers(0, len(content) - 1))
    with pytest.raises(DamagedError):
        forms.read(forms.record, content[:end])


@pytest.mark.parametrize(
    "content", [b"[" * 100_000, b"\xff\xfe", b"[[],null]", b'{"a":1}', b"[[],[1,2,3]]", b"1" * 10_000]
)
def test_what_is_no_plan_is_refused(content):
    with pytest.raises(DamagedError):
        forms.read(forms.record, content)


def numbers_of_addresses(kept):
    """Where a program says how many addresses and vectors it takes."""
    _, (_, inference, training) = kept
    program = inference[0]
    yield program, 2, program[2] + 1
    yield program, 2, program[2] - 1
    yield program, 3, [*program[3], 5]
    yield program, 5, [99]
    yield program, 6, [99]
    yield inference, 3, [7]
    yield inference, 5, [*inference[5], 4]
    yield training[0][1][1][0], 2, training[0][1][1][0][2] + 1
    yield training[0][1], 2, [99]
    yield training[0], 0, [True]


@pytest.mark.parametrize("k", range(10))
def test_a_program_gets_as_many_addresses_as_it_takes(k, kept):
    changed = copy.deepcopy(kept)
    part, key, new = list(numbers_of_addresses(changed))[k]
    part[key] = new
    with pytest.raises(DamagedError):
        forms.read(forms.record, json.dumps(changed).encode())


def test_a_planted_plan_that_computes_something_else_is_made_anew(tmp_path, monkeypatch):
    """Well formed, signed, of the right sizes, and wrong: two steps are compared with the cell's."""
    monkeypatch.setenv("UNROLLED_CACHE", str(tmp_path / "cache"))
    cell, x = CELLS["elman"](3, 4), torch.randn(4, 2, 3)
    good, path = b"", tmp_path
    for old, new in ((b"", b""), (b"aten.tanh.default", b"aten.sin.default"), (b"aten.mm.default", b"aten.mul.Tensor")):
        monkeypatch.setattr(planned, "_planned", Known())
        if good:
            _, _, content = good.partition(b"\n")
            assert old in content
            content = content.replace(old, new)
            path.write_bytes(store.stated_digest(path.stem, content) + b"\n" + content)
        torch.testing.assert_close(unroll(cell, x, backend="native")[0], unroll(cell, x, backend="eager")[0])
        (path,) = (tmp_path / "cache").glob("*.plan")
        good = good or path.read_bytes()
        assert path.read_bytes() == good


def test_a_plan_whose_library_is_gone_is_traced_again(tmp_path, monkeypatch):
    """Its C is not in the file: it comes of the cell."""
    monkeypatch.setenv("UNROLLED_CACHE", str(tmp_path / "cache"))
    cell, x = CELLS["elman"](3, 4), torch.randn(4, 2, 3)
    for _ in range(2):
        monkeypatch.setattr(planned, "_planned", Known())
        with torch.no_grad():
            torch.testing.assert_close(unroll(cell, x, backend="native")[0], unroll(cell, x, backend="eager")[0])
        for path in (tmp_path / "cache").glob("*.so"):
            path.unlink()
    (path,) = (tmp_path / "cache").glob("*.plan")
    key = json.loads(path.read_bytes().partition(b"\n")[2])[1][1][0][0]
    assert native.find(key) is None

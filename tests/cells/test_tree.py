"""Tree cells against their formulas, written out in NumPy apart from the package; trees and their batches."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from unrolled.cells import TREE_CELLS
from unrolled.cells.tree import TreeCell
from unrolled.data.trees import batch_trees, parse_tree, read_trees
from unrolled.errors import ConfigurationError, DataError
from unrolled.layers.tree import run_trees

H = 4


def sigmoid(a):
    return 1 / (1 + np.exp(-a))


def composed_leaf(p, x):
    return (np.tanh(p["weight_leaf"] @ x + p["bias_leaf"]),)


def composed(p, left, right):
    return (np.tanh(p["weight"] @ np.concatenate([left[0], right[0]]) + p["bias"]),)


def lstm_leaf(p, x):
    i, o, u = np.split(p["weight_leaf"] @ x + p["bias_leaf"], 3)
    c = sigmoid(i) * np.tanh(u)
    return sigmoid(o) * np.tanh(c), c


def lstm(p, left, right):
    i, f_left, f_right, o, u = np.split(p["weight"] @ np.concatenate([left[0], right[0]]) + p["bias"], 5)
    c = sigmoid(i) * np.tanh(u) + sigmoid(f_left) * left[1] + sigmoid(f_right) * right[1]
    return sigmoid(o) * np.tanh(c), c


FORMULAS = {"composed": (composed_leaf, composed), "tree-lstm": (lstm_leaf, lstm)}


def random_tree(generator, leaves):
    """A random bracketing, with a label on every node and the leaf's number as its word."""
    nodes = [f"({generator.integers(5)} {k})" for k in range(leaves)]
    while len(nodes) > 1:
        k = int(generator.integers(len(nodes) - 1))
        nodes[k : k + 2] = [f"({generator.integers(5)} {nodes[k]} {nodes[k + 1]})"]
    return nodes[0]


@pytest.mark.parametrize("name", TREE_CELLS)
@given(sizes=st.lists(st.integers(1, 9), min_size=1, max_size=4), seed=st.integers(0, 99))
def test_a_batch_of_trees_is_the_formula_node_by_node(name, sizes, seed):
    generator = np.random.default_rng(seed)
    trees = [parse_tree(random_tree(generator, size)) for size in sizes]
    tokens = [[0 if word is None else int(word) for word in tree.words] for tree in trees]
    table = torch.randn(9, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    cell = TREE_CELLS[name](3, H).double()
    batch, labels = batch_trees(trees, tokens)
    found = run_trees(cell, table[batch.tokens], batch.levels)
    p = {key: value.detach().numpy() for key, value in cell.named_parameters()}
    of_leaf, of_node = FORMULAS[name]
    assert len(batch) == len(labels) == len(found[0]) == sum(map(len, trees))
    for root, tree in zip(batch.roots, trees, strict=True):
        states = []
        for word, left, right in zip(tree.words, tree.left, tree.right, strict=True):
            states.append(of_leaf(p, table[int(word)].numpy()) if word else of_node(p, states[left], states[right]))
        for part, expected in zip(found, states[-1], strict=True):
            assert np.allclose(part[root].detach().numpy(), expected)
        assert labels[root] == tree.labels[-1]


@pytest.mark.parametrize("name", TREE_CELLS)
def test_gradients_go_back_through_structure(name):
    tree = parse_tree("(1 (0 (2 a) (3 b)) (4 c))")
    cell = TREE_CELLS[name](2, 3).double()
    batch, _ = batch_trees([tree], [[0, 1, 0, 2, 0]])
    leaves = torch.randn(3, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: run_trees(cell, x, batch.levels)[0], (leaves,))


def test_a_tree_as_the_treebank_writes_it(tmp_path):
    tree = parse_tree("(3 (2 It) (4 (2 's) (4 lovely)))")
    assert tree.words == ("It", "'s", "lovely", None, None)
    assert tree.labels == (2, 2, 4, 4, 3)
    assert (tree.left, tree.right) == ((-1, -1, -1, 1, 0), (-1, -1, -1, 2, 3))
    path = tmp_path / "trees.txt"
    path.write_text("(1 a)\n\n(2 (1 a) (0 1\xa01/2))\n", encoding="utf-8")
    assert [len(tree) for tree in read_trees(path)] == [1, 3]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("(1 (2 a))", "one word or two children"),
        ("(1 (2 a) (2 b) (2 c))", "one word or two children"),
        ("(x a)", "a label, a whole number"),
        ("(1 a", "before its last bracket"),
        ("(1 a) b", "after the tree"),
        ("a", "begins with a bracket"),
    ],
)
def test_what_is_no_tree(text, expected, tmp_path):
    with pytest.raises(DataError, match=expected):
        parse_tree(text)
    path = tmp_path / "trees.txt"
    path.write_text(f"(1 a)\n{text}\n")
    with pytest.raises(DataError, match=r"trees.txt:2: "):
        read_trees(path)


def test_sizes_and_formulas_that_are_missing():
    with pytest.raises(ConfigurationError, match="at least 1"):
        TreeCell(0, 3)
    with pytest.raises(NotImplementedError, match="leaf"):
        TreeCell(2, 3).leaf(torch.zeros(1, 2))

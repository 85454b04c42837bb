"""The matrix of confusions, and its figure."""

from unrolled.analysis.confusion import confusion_matrix, draw_confusion
from unrolled.metrics.confusion import by_true

COUNTS = by_true([("a", "a"), ("a", "b"), ("a", "a"), ("b", "b"), ("", "c"), (" ", "a")])


def test_rows_are_true_and_columns_given():
    assert COUNTS == {"": {"c": 1}, " ": {"a": 1}, "a": {"a": 2, "b": 1}, "b": {"b": 1}}
    names, matrix, left = confusion_matrix(COUNTS)
    assert names == ["", " ", "a", "b", "c"]
    assert matrix[2].tolist() == [0, 0, 2, 1, 0]
    assert matrix.sum() == 6
    assert left == 0
    names, matrix, left = confusion_matrix(COUNTS, most=2)
    assert names == ["a", "b"]
    assert matrix.tolist() == [[2, 1], [0, 1]]
    assert left == 2


def test_the_figure_names_classes_and_counts():
    axes = draw_confusion(COUNTS, "title").axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["∅", "␣", "a", "b", "c"]
    assert sorted(text.get_text() for text in axes.texts) == ["1", "1", "1", "1", "2"]
    assert draw_confusion({}).axes


def test_the_colour_is_the_share_of_all_items_of_a_class():
    """Also where some were given a class that the figure leaves out."""
    counts = {"a": {"a": 6, "b": 3, "rare": 1}, "b": {"b": 9}}
    shares = draw_confusion(counts, most=2).axes[0].images[0].get_array()
    assert shares.tolist() == [[0.6, 0.3], [0.0, 1.0]]


def test_only_the_start_of_a_long_name_is_shown():
    axes = draw_confusion({"x" * 1000: {"y": 1}}).axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["x" * 39 + "…", "y"]

"""A tagger as a task: what it learns, how it is scored, and what is said of odd data."""

import json
import random
from dataclasses import replace

import pytest
import torch

from tests.tasks.shared import assert_same_weights, whole_and_resumed
from tests.tasks.test_translation_task import gradients
from unrolled.data.tag_batches import Index, TagBatches, TagEncoder
from unrolled.data.tagged import TaggedSentence, write_tagged
from unrolled.errors import ConfigurationError, DataError, RunError
from unrolled.tasks import load
from unrolled.tasks.start import Start
from unrolled.tasks.tagging import TaggingTask, create_run
from unrolled.tasks.tagging_settings import (
    SentencesConfig,
    TagEvaluation,
    TaggerConfig,
    TaggingConfig,
    TagTraining,
)
from unrolled.training import Trainer, open_run

SMALL = {"hidden_size": 12, "embedding_size": 6, "character_size": 4, "character_hidden_size": 5, "dropout": 0.0}


def sentences(count, seed=0, scheme="iob2"):
    """People and places: the first is told by its last letter, the second by its capital alone."""
    draw = random.Random(seed)
    found = []
    for _ in range(count):
        words, tags = ["so"], ["O"]
        for _ in range(draw.randint(1, 3)):
            kind = draw.choice(["PER", "LOC"])
            names = [draw.choice("KLMN") + draw.choice(["ari", "olo"]) + ("x" if kind == "PER" else "") for _ in "ab"]
            size = draw.randint(1, 2)
            words += [*names[:size], draw.choice(["saw", "and"])]
            marks = {"iob2": "BI", "iob1": "II", "bioes": "SE" if size == 1 else "BE"}[scheme]
            tags += [f"{mark}-{kind}" for mark in marks[:size]] + ["O"]
        found.append(TaggedSentence(tuple(words), tuple(tags)))
    return found


def write(path, found, form="conll"):
    path.write_text("".join(write_tagged(one, form) for one in found), encoding="utf-8")
    return str(path)


def config(tmp_path, scheme="iob2", dev=None, steps=30, **model):
    data = write(tmp_path / "train.conll", sentences(120, 0, scheme))
    dev = write(tmp_path / "dev.conll", sentences(30, 1, scheme) if dev is None else dev)
    training = TagTraining(learning_rate=0.02, warmup_steps=0, max_steps=steps, eval_every=15, sample_every=15)
    return TaggingConfig(SentencesConfig(data, dev), TaggerConfig(**{**SMALL, **model}), training)


def trained(tmp_path, **options):
    task = create_run(tmp_path / "run", config(tmp_path, **options))
    Trainer(task, task.config.training, task.run).train()
    return task


@pytest.mark.parametrize(
    ("scheme", "model"),
    [("iob2", {}), ("bioes", {"cell": "gru"}), ("iob2", {"crf": False, "num_layers": 2})],
)
def test_it_learns_names_by_their_letters(tmp_path, scheme, model):
    task = trained(tmp_path, scheme=scheme, steps=75 if model.get("crf", True) else 150, **model)
    report = task.load("best").score()
    values = report.json()
    assert values["f1"] > 0.9
    assert values["accuracy"] > 0.95
    assert values["f1_signature"] == f"strict {scheme}"
    assert set(values["types"]) == {"PER", "LOC"}
    assert report.headline.startswith("F1 of spans")
    samples = (tmp_path / "run" / "samples.txt").read_text()
    assert "so/O" in samples
    opened = load(tmp_path / "run")
    assert opened.tag([["so", "Kolox", "saw"], []]) == [["O", opened.tag([["so", "Kolox", "saw"]])[0][1], "O"], []]
    chances = opened.marginals(["so", "Kolox", "saw"])
    assert all(sum(row.values()) == pytest.approx(1, rel=1e-4) for row in chances)
    assert opened.marginals([]) == []


def test_tags_that_mark_no_spans_have_a_softmax_and_an_accuracy(tmp_path):
    path = write(tmp_path / "a.conll", [TaggedSentence(("a", "B"), ("DET", "NOUN"))] * 12)
    task = create_run(tmp_path / "run", TaggingConfig(SentencesConfig(path), TaggerConfig(**SMALL)))
    assert task.model.crf is None
    assert len(task.dev) == 1
    report = task.score()
    assert report.headline.startswith("accuracy")
    assert "f1" not in report.json()


@pytest.mark.parametrize("crf", [True, False])
def test_parts_and_shares_of_a_batch_add_up_to_it(tmp_path, crf):
    task = create_run(tmp_path / "run", config(tmp_path, crf=crf))
    batch = task.epoch(0).batch(0)
    loss, whole = gradients(task, batch)
    for accumulate in (1, 2):
        shares = [gradients(task, batch, 3, rank, accumulate) for rank in range(3)]
        assert sum(part for part, _ in shares) == pytest.approx(loss, rel=1e-5)
        for expected, *parts in zip(whole, *(found for _, found in shares), strict=True):
            torch.testing.assert_close(sum(parts), expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("crf", [True, False])
def test_padding_changes_nothing(tmp_path, crf):
    task = create_run(tmp_path / "run", config(tmp_path, crf=crf))
    task.model.eval()
    some = task.dev[:6]
    together = task.encoder.batch(some)
    alone = [task.encoder.batch([one]) for one in some]
    with torch.no_grad():
        total = sum(float(task.loss(one)[0]) for one in alone)
        assert float(task.loss(together)[0]) == pytest.approx(total, rel=1e-5)
        assert task.model.decode(together) == [task.model.decode(one)[0] for one in alone]
        marginals = task.model.marginals(together)
        for row, one in enumerate(alone):
            length = len(some[row].words)
            torch.testing.assert_close(marginals[:length, row], task.model.marginals(one)[:, 0], rtol=1e-4, atol=1e-5)
            assert not marginals[length:, row].any()
    paths = task.model.best(together, n=3)
    for row, best in enumerate(paths):
        assert len(best) == 3
        assert best[0].tags == task.model.decode(together)[row]
        assert 0 >= best[0].score >= best[1].score >= best[2].score


def test_iob1_is_converted_and_said(tmp_path):
    task = create_run(tmp_path / "run", config(tmp_path, scheme="iob1"))
    assert {tag[:2] for one in task.train for tag in one.tags} == {"O", "B-", "I-"}
    assert any("IOB1" in note for note in task.noticed.notes)
    assert not task.model.crf.allowed_transitions.all()
    file = write(tmp_path / "test.conll", sentences(9, 3, "iob1"))
    assert task.score(file).json()["words"] == sum(len(one.words) for one in sentences(9, 3))


def test_tags_that_break_bioes_are_learned_without_its_rules(tmp_path):
    found = [*sentences(60, 0, "bioes"), TaggedSentence(("Kari",), ("E-LOC",))]
    path = write(tmp_path / "a.conll", found)
    task = create_run(tmp_path / "run", TaggingConfig(SentencesConfig(path, path), TaggerConfig(**SMALL)))
    assert task.model.crf.allowed_transitions.all()
    assert any(
        "1 sentence of training" in note or "BIOES is not enforced: 1 sentence" in note for note in task.noticed.notes
    )
    assert ("note", task.noticed.notes[0]) in task.facts()
    both = task.validate()
    assert both is not None
    assert both == pytest.approx(
        sum(float(task.loss(task.encoder.batch([one]))[0]) for one in found) / sum(len(one.words) for one in found),
        rel=1e-4,
    )


def test_tags_that_training_lacks_are_errors_and_named(tmp_path):
    dev = [*sentences(3, 1), TaggedSentence(("so", "Bx"), ("O", "B-ORG"))]
    task = create_run(tmp_path / "run", config(tmp_path, dev=dev))
    assert any("1 tag that training lacks (B-ORG): 1 error" in note for note in task.noticed.notes)
    assert task.validate() == pytest.approx(
        sum(float(task.loss(task.encoder.batch([one]))[0]) for one in dev[:3]) / sum(len(one.words) for one in dev[:3]),
        rel=1e-5,
    )
    assert task.score().json()["types"]["ORG"]["f1"] == 0


def test_a_resumed_run_ends_with_the_same_weights(tmp_path):
    """Also with words dropped at random, and a pass that was left in the middle."""
    settings = config(tmp_path, dropout=0.3)
    training = replace(settings.training, lr_schedule="constant", eval_every=2, max_steps=7, word_dropout=0.3)
    whole, resumed = whole_and_resumed(tmp_path, TaggingTask, replace(settings, training=training), 4)
    assert_same_weights(whole, resumed)


def test_dropped_words_are_those_of_the_seed():
    found = [TaggedSentence(("a",) * 9, ("X",) * 9)] * 40
    encoder = TagEncoder(Index(["<unk>", "a"]), Index(["<unk>"]), Index(["X"]))
    one, same, other = (TagBatches(encoder, found, 40, (seed, 0), 0.25).batch(0).words for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert 0.15 < (one == 0).double().mean() < 0.35


def test_word_vectors(tmp_path):
    (tmp_path / "vectors.txt").write_text("saw 1 2\nunheard 3 4\n")
    settings = config(tmp_path, embedding_size=2, vectors=str(tmp_path / "vectors.txt"), fix_vectors=True)
    task = create_run(tmp_path / "run", settings)
    assert task.model.embedding.weight[task.words["saw"]].tolist() == [1.0, 2.0]
    before = task.model.embedding.weight.clone()
    Trainer(task, replace(task.config.training, max_steps=2), task.run).train()
    assert torch.equal(task.model.embedding.weight, before)
    with pytest.raises(ConfigurationError, match="vectors of 2 numbers; add `embedding_size=2`"):
        create_run(tmp_path / "wide", config(tmp_path, embedding_size=3, vectors=str(tmp_path / "vectors.txt")))
    with pytest.raises(ConfigurationError, match="`fix_vectors` needs word vectors"):
        config(tmp_path, fix_vectors=True)


def test_vectors_are_found_in_the_form_in_which_words_are_looked_up(tmp_path):
    data = write(tmp_path / "a.conll", [TaggedSentence(("Saw", "kari", "1999", "rare"), ("V", "N", "D", "N"))] * 12)
    (tmp_path / "vectors.txt").write_text("SAW 1 2\nSaw 3 4\nKari 5 6\nkari 7 8\n2001 9 1\n1999 2 3\nunheard 4 5\n")
    vectors = TaggerConfig(**{**SMALL, "embedding_size": 2}, vectors=str(tmp_path / "vectors.txt"))
    task = create_run(tmp_path / "run", TaggingConfig(SentencesConfig(data), vectors))
    weight = task.model.embedding.weight
    found = {word: weight[task.words[word]].tolist() for word in ("saw", "kari", "0000")}
    assert found == {"saw": [1.0, 2.0], "kari": [7.0, 8.0], "0000": [9.0, 1.0]}
    assert task.counts["started"] == 3
    assert "3 words start from" in dict(task.facts())["words"]
    assert json.loads((tmp_path / "run" / "facts.json").read_text())["counts"]["started"] == 3


def test_a_run_with_new_data_starts_its_new_words_from_vectors(tmp_path):
    task = trained(tmp_path, embedding_size=2, steps=2)
    new = write(tmp_path / "new.conll", [*sentences(30), *[TaggedSentence(("so", "novel"), ("O", "O"))] * 12])
    (tmp_path / "vectors.txt").write_text("so 1 2\nnovel 3 4\n")
    model = replace(task.config.model, vectors=str(tmp_path / "vectors.txt"))
    settings = TaggingConfig(SentencesConfig(new), model, task.config.training)
    started = TaggingTask.create(tmp_path / "started", settings, start=Start(task.run.path))
    weight, words = started.model.embedding.weight, started.words
    assert weight[words["novel"]].tolist() == [3.0, 4.0]
    expected = task.load("best").model.embedding.weight[task.words["so"]]
    assert torch.equal(weight[words["so"]], expected)


def test_the_best_of_many_sentences_are_those_of_each(tmp_path):
    task = create_run(tmp_path / "run", config(tmp_path))
    task.model.eval()
    together = task.best(task.dev, 5000)  # more at once than the words of a batch: sentences are read alone
    for found, sentence in zip(together, task.dev, strict=True):
        few = task.best([sentence], 3)[0]
        assert [one.tags for one in found[:3]] == [one.tags for one in few]
        assert [one.log_prob for one in found[:3]] == pytest.approx([one.log_prob for one in few], rel=1e-4)
    assert [list(found[0].tags) for found in together] == task.tag(task.dev)
    for wrong in (0, 10_001):
        with pytest.raises(ConfigurationError, match="`best` must be from 1 to 10,000"):
            task.best(task.dev, wrong)


def test_frames_are_for_another_task(tmp_path):
    with pytest.raises(DataError, match="frames are labelled by `unrolled train segment`"):
        create_run(tmp_path / "run", TaggingConfig(SentencesConfig("frames.npz")))


def test_odd_tags_are_named(tmp_path):
    found = [TaggedSentence(("a", "b", "c"), ("B-X", "I-X", "x"))] * 5
    path = write(tmp_path / "a.conll", found)
    task = create_run(tmp_path / "run", TaggingConfig(SentencesConfig(path, path), TaggerConfig(**SMALL)))
    assert any("neither IOB2 nor BIOES, so spans are not scored: x" in note for note in task.noticed.notes)
    bilou = TaggedSentence(("a", "b", "c", "d"), ("B-X", "L-X", "U-X", "O"))
    path = write(tmp_path / "bilou.conll", [bilou] * 5)
    task = create_run(tmp_path / "third", TaggingConfig(SentencesConfig(path, path), TaggerConfig(**SMALL)))
    assert any("spans are not scored: L-X, U-X" in note for note in task.noticed.notes)
    path = write(tmp_path / "b.conll", [TaggedSentence(("a", "b"), ("_", "_"))] * 5)
    task = create_run(tmp_path / "other", TaggingConfig(SentencesConfig(path, path), TaggerConfig(**SMALL)))
    assert any("the same tag, '_'" in note for note in task.noticed.notes)


def test_the_column_of_training_is_that_of_files_of_its_format(tmp_path):
    rows = "".join(f"{word} {tag} x\n" for one in sentences(20) for word, tag in zip(one.words, one.tags, strict=True))
    (tmp_path / "three.conll").write_text(rows)
    data = SentencesConfig(str(tmp_path / "three.conll"), str(tmp_path / "three.conll"), column="2")
    task = create_run(tmp_path / "run", TaggingConfig(data, TaggerConfig(**SMALL)))
    assert task.form_and_column("a.txt") == ("conll", "2")
    assert task.form_and_column("a.conllu") == ("conllu", "")
    assert task.score(str(tmp_path / "three.conll")).json()["sentences"] == 1
    bioes = write(tmp_path / "b.conll", sentences(5, 2, "bioes"))
    report = task.score(bioes, column="2")
    assert any("not IOB2, as those of training" in note for note in report.notes)
    assert any("training lacks" in note for note in report.notes)


def test_kinds_with_dots(tmp_path):
    found = [TaggedSentence(("a", "b"), ("B-PER.NAM", "B-PER"))] * 5
    path = write(tmp_path / "a.conll", found)
    task = create_run(tmp_path / "run", TaggingConfig(SentencesConfig(path, path), TaggerConfig(**SMALL)))
    assert set(task.score().json()["types"]) == {"PER:NAM", "PER"}


def test_a_long_sentence_is_alone(tmp_path):
    data = [*sentences(50), TaggedSentence(("so",) * 5000, ("O",) * 5000)]
    path = write(tmp_path / "a.conll", data)
    task = create_run(tmp_path / "run", TaggingConfig(SentencesConfig(path, path), TaggerConfig(**SMALL)))
    epoch = task.epoch(0)
    assert sorted(k for some in epoch.batches for k in some) == list(range(51))
    assert [len(some) for some in epoch.batches if 50 in some] == [1]


def test_a_run_that_starts_from_another(tmp_path):
    first = trained(tmp_path, steps=15)
    data = write(tmp_path / "other.conll", [*sentences(50, 5), TaggedSentence(("Zarix", "Zarix"), ("B-PER", "O"))])
    settings = TaggingConfig(SentencesConfig(data, data), TaggerConfig(**SMALL))
    start = Start(tmp_path / "run")
    second = TaggingTask.create(tmp_path / "second", settings, start=start)
    number, old = second.words["kari"], first.words["kari"]
    assert torch.equal(second.model.embedding.weight[number], start.task.model.embedding.weight[old])
    assert torch.equal(second.model.crf.transitions, start.task.model.crf.transitions)
    assert any("tokens are known" in note for note in start.notes)
    other = write(tmp_path / "tags.conll", [TaggedSentence(("Kari", "so", "Bx"), ("B-ORG", "O", "B-PER"))] * 9)
    settings = TaggingConfig(SentencesConfig(other, other), TaggerConfig(**SMALL))
    third = TaggingTask.create(tmp_path / "third", settings, start=Start(tmp_path / "run"))
    old, new = ([part.tags[name] for name in ("O", "B-PER")] for part in (first, third))
    expected = start.task.model.crf.transitions[old][:, old]
    assert torch.equal(third.model.crf.transitions[new][:, new], expected)
    assert not third.model.crf.transitions[third.tags["B-ORG"]].any()  # fresh
    assert torch.equal(third.model.readout.weight[new], start.task.model.readout.weight[old])


def test_what_is_refused(tmp_path):
    with pytest.raises(ConfigurationError, match="`data` is missing"):
        create_run(tmp_path / "a", TaggingConfig())
    (tmp_path / "empty.conll").write_text("\n\n")
    with pytest.raises(DataError, match=r"empty\.conll: there are no sentences in it"):
        create_run(tmp_path / "a", TaggingConfig(SentencesConfig(str(tmp_path / "empty.conll"))))
    assert not (tmp_path / "a").exists()
    task = create_run(tmp_path / "run", config(tmp_path))
    with pytest.raises(ConfigurationError, match="a list of words, not one string"):
        task.tag(["so Kari"])
    with pytest.raises(ConfigurationError, match="must be strings"):
        task.marginals([None])
    with pytest.raises(DataError, match="there are no sentences"):
        task.score(str(tmp_path / "empty.conll"))
    with pytest.raises(ConfigurationError, match="describe a file"):
        TagEvaluation(column="2")


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("tags.json", "["),
        ("tags.json", "{}"),
        ("tags.json", '{"spans": 3, "scheme": "", "notes": []}'),
        ("sentences.json", "{}"),
        ("sentences.json", json.dumps({"train": [[["a"], []]], "dev": []})),
        ("sentences.json", json.dumps({"train": [[[1], ["O"]]], "dev": []})),
        ("sentences.json", json.dumps({"train": [], "dev": []})),
        ("vocabulary-tags.json", '["O", "O"]'),
        ("vocabulary-tags.json", "[]"),
        ("vocabulary-words.json", "[]"),
        ("vocabulary-words.json", '{"a": 1}'),
        ("vocabulary-characters.json", "["),
    ],
)
def test_a_damaged_run(tmp_path, file, content):
    create_run(tmp_path / "run", config(tmp_path))
    (tmp_path / "run" / file).write_text(content)
    (tmp_path / "run" / "facts.json").unlink()
    with pytest.raises(RunError, match=file):
        TaggingTask(open_run(tmp_path / "run")).verify()

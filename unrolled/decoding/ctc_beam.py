"""Prefix beam search over CTC frame scores, with a language model and a lexicon. It reads frames as they come.

Sources: Graves et al. 2006, "Connectionist Temporal Classification"; Hannun et al. 2014, "First-Pass Large Vocabulary
Continuous Speech Recognition using Bi-Directional Recurrent DNNs".
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from torch import Tensor

from unrolled.decoding.beam import MOST_HYPOTHESES
from unrolled.decoding.ctc import checked_lengths
from unrolled.decoding.ctc_state import (
    BLANK,
    LABEL,
    LAST,
    LENGTH,
    NEVER,
    NUMBER,
    PARENT_ROW,
    ROW,
    WORD,
    CTCState,
    Scored,
)
from unrolled.decoding.label_scorer import LabelScorer
from unrolled.decoding.lexicon import Lexicon
from unrolled.decoding.sampling import fault
from unrolled.errors import ConfigurationError, DecodingError, ShapeError


@dataclass(frozen=True)
class CTCHypothesis:
    """An output of the search.

    labels: the labels, without blanks.
    score: `log_prob + lm_weight * lm_log_prob + length_bonus * len(labels)`.
    log_prob: the log-probability of the labels by the frame scores: the sum over all of their paths that were searched.
    lm_log_prob: the log-probability of the labels by the language model; 0 without one.
    frames: the first and the last frame of each label on the most probable of these paths, counted from 0.
    """

    labels: tuple[int, ...]
    score: float
    log_prob: float
    lm_log_prob: float
    frames: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class CTCBeam:
    """Prefix beam search and its settings.

    width: the number of prefixes kept after each frame.
    n_best: the number of outputs to return, the best first.
    blank: the label of the blank.
    language_model: scores each label given the prefix, or None; see `ModelScorer` and `KenLMScorer`.
    lm_weight: the factor of the language model's log-probabilities.
    length_bonus: added to the score for each label. It makes up for the language model's preference of short outputs.
    lexicon: the only words that outputs consist of, or None.
    prune: labels with a lower probability in a frame extend no prefix there; 0 is off. The best label always does.

    A prefix's probability is the sum over all paths that give it. Paths that end in the blank and those that end in a
    label are summed separately, because the same label once more extends the prefix only after a blank. The beam keeps
    the prefixes with the best scores (see `CTCHypothesis`).

    `decode` takes whole sequences. For a stream, call `state = start()`, then `state = feed(state, frames)` for each
    piece, and `result(state)` at any time. The pieces may be cut anywhere: the result is the same bit for bit.
    """

    width: int = 16
    n_best: int = 1
    blank: int = 0
    language_model: LabelScorer | None = None
    lm_weight: float = 0.5
    length_bonus: float = 0.0
    lexicon: Lexicon | None = None
    prune: float = 0.001

    def __post_init__(self) -> None:
        for name, least in (("width", 1), ("n_best", 1), ("blank", 0)):
            if getattr(self, name) < least:
                flag = name.replace("_", "-")
                raise ConfigurationError(f"{flag} must be at least {least}, got {getattr(self, name)}", setting=name)
        if self.width > MOST_HYPOTHESES:
            message = f"width must be at most {MOST_HYPOTHESES:,}, got {self.width:,}: it would take too long"
            raise ConfigurationError(message, setting="width")
        if self.n_best > self.width:
            message = f"n-best ({self.n_best}) cannot be above the width ({self.width}): widen the beam"
            raise ConfigurationError(message, setting=("n_best", "width"))
        if not 0 <= self.prune < 1:
            raise ConfigurationError(f"prune must be from 0 (off) to below 1, got {self.prune}", setting="prune")
        if not 0 <= self.lm_weight < np.inf:
            raise ConfigurationError(f"the lm-weight must be 0 or above, got {self.lm_weight}", setting="lm_weight")
        if not abs(self.length_bonus) < np.inf:
            raise ConfigurationError(
                f"the length-bonus must be finite, got {self.length_bonus}", setting="length_bonus"
            )

    def start(self) -> CTCState:
        """Return the state before the first frame: the empty prefix with probability 1."""
        if self.language_model is None:
            return CTCState.first(self.blank, None)
        return CTCState.first(self.blank, Scored({0: 0}, *self.language_model.start()))

    def feed(self, state: CTCState, frames: Tensor | np.ndarray) -> CTCState:
        """Return the state after more frames, log-probabilities `[t, K]`.

        Raises DecodingError, with the frame as its step, if a frame holds NaN or +inf or has -inf for every label.
        Raises ShapeError if the frames are not `[t, K]`, or K is not that of the frames before.
        Raises ConfigurationError if the blank, the language model or the lexicon does not fit the K labels.
        """
        if isinstance(frames, Tensor):
            frames = frames.detach().double().cpu().numpy()
        scores = np.asarray(frames, np.float64)
        if scores.ndim != 2 or state.labels not in (None, scores.shape[1]):
            wanted = "[t, K]" if state.labels is None else f"[t, {state.labels}]"
            raise ShapeError(f"frame scores must be {wanted}, got {list(scores.shape)}")
        if state.labels is None:
            self._check_labels(scores.shape[1])
            state = replace(state, labels=scores.shape[1])
        if not len(scores):
            return state
        most = scores.max(-1)
        broken = np.flatnonzero(~np.isfinite(most))
        if broken.size:
            raise DecodingError(fault(float(most[broken[0]])), step=state.time + int(broken[0]))
        floor = np.minimum(most, np.log(self.prune) if self.prune else NEVER)
        spoken = (scores >= floor[:, None]) & (scores > NEVER)
        spoken[:, self.blank] = False
        if self.lexicon is not None:
            spoken[:, self.lexicon.labels :] = False
        for frame, usable in zip(scores, spoken, strict=True):
            if not len(state.lm):
                return replace(state, time=state.time + len(scores))
            state = self._step(state, frame, np.flatnonzero(usable)).compact()
        return state

    def result(self, state: CTCState, n_best: int | None = None, final: bool = True) -> list[CTCHypothesis]:
        """Return the `n_best` outputs so far, the best first. There are fewer, or none, if no others are possible.

        n_best: the number of outputs. Default: that of the settings.
        final: whether the frames are complete. If so, outputs must be complete words of the lexicon, and the scores
            include that of the end if the language model has one.
        """
        lm = state.lm
        if final and self.language_model is not None and self.language_model.scores_end:
            state = self._scored(state)
            assert state.scored is not None
            rows = self.language_model.pick(state.scored.states, state.prefix[ROW])
            lm = lm + self.language_model.end(rows)
        log_prob = np.logaddexp(*state.mass)
        score = log_prob + self._prior(lm, state.prefix[LENGTH])
        if final and self.lexicon is not None:
            score = np.where(self.lexicon.complete[state.prefix[WORD]], score, NEVER)
        places = [k for k in (-score).argsort(kind="stable").tolist() if score[k] > NEVER]
        return [
            CTCHypothesis(
                state.labels_of(k),
                float(score[k]),
                float(log_prob[k]),
                float(lm[k]),
                state.frames_of(k),
            )
            for k in places[: self.n_best if n_best is None else n_best]
        ]

    def decode(self, log_probs: Tensor, lengths: Tensor | None = None) -> list[list[CTCHypothesis]]:
        """Return the `n_best` outputs of every sequence; see `result`.

        log_probs: log-probabilities of the labels in each frame, `[T, B, K]`.
        lengths: the number of frames of each sequence, `[B]`. Default: T.

        Raises the errors of `feed`, and ShapeError if the lengths do not fit. A DecodingError also has the sequence as
        its sentence.
        """
        every = checked_lengths(log_probs, lengths, self.blank).tolist()
        log_probs = log_probs.detach().cpu()
        found = []
        for row, length in enumerate(every):
            try:
                found.append(self.result(self.feed(self.start(), log_probs[:length, row])))
            except DecodingError as error:
                raise error.at(sentence=row) from None
        return found

    def _check_labels(self, labels: int) -> None:
        """Raise ConfigurationError if the settings do not fit frame scores of `labels` labels."""
        if self.blank >= labels:
            message = f"the blank is label {self.blank}, but the frame scores have {labels} labels"
            raise ConfigurationError(message, setting="blank")
        if self.language_model is not None and self.language_model.labels != labels:
            raise ConfigurationError(
                f"the language model scores {self.language_model.labels} labels, but the frame scores have {labels}"
            )
        if self.lexicon is not None:
            self.lexicon.check(labels, self.blank)

    def _prior(self, lm: np.ndarray, length: np.ndarray) -> np.ndarray:
        """Return the part of the scores that does not depend on the frames."""
        bonus = self.length_bonus * length.astype(float)
        return bonus + self.lm_weight * lm if self.lm_weight else bonus  # 0 * -inf is NaN

    def _step(self, state: CTCState, frame: np.ndarray, spoken: np.ndarray) -> CTCState:
        """Return the state after a frame, log-probabilities `[K]`, whose labels `spoken [A]` may extend prefixes."""
        last, time = state.prefix[LAST], state.time
        total = np.logaddexp(*state.mass)
        repeat = frame[last]
        # Prefixes that stay as they are: by the blank after anything, or by the last label again.
        mass = np.stack([total + frame[self.blank], state.mass[LABEL] + repeat])
        best = np.stack([state.best.max(0) + frame[self.blank], state.best[LABEL] + repeat])
        frames = state.frames.copy()
        frames[BLANK] = np.where(state.best[LABEL] > state.best[BLANK], frames[LABEL], frames[BLANK])
        frames[LABEL, 2] = time
        stay = replace(state, mass=mass, best=best, frames=frames, time=time + 1)
        if not spoken.size:
            return stay.select(np.flatnonzero(mass.max(0) > NEVER))
        if self.language_model is not None:
            state = self._scored(state)
            stay = replace(stay, prefix=state.prefix, scored=state.scored)

        extended = total[:, None] + frame[spoken]
        column = np.full(len(frame), -1)
        column[spoken] = np.arange(len(spoken))
        again = column[last]  # the column of the last label, or -1
        repeating = np.flatnonzero(again >= 0)
        extended[repeating, again[repeating]] = state.mass[BLANK, repeating] + repeat[repeating]
        if self.lexicon is not None:
            word = self.lexicon.table[state.prefix[WORD][:, None], spoken]
            extended[word < 0] = NEVER
        self._merge(state, stay, extended, again, repeat)

        score = extended + (self._prior(state.lm, state.prefix[LENGTH]) + self.length_bonus)[:, None]
        if state.scored is not None and self.lm_weight:
            score += self.lm_weight * state.scored.scores[state.prefix[ROW][:, None], spoken]
        staying = np.logaddexp(*mass) + self._prior(state.lm, state.prefix[LENGTH])
        scores = np.concatenate([staying, score.ravel()])
        if len(scores) > self.width:
            chosen = np.sort(np.argpartition(-scores, self.width - 1)[: self.width])
        else:
            chosen = np.arange(len(scores))
        chosen = chosen[scores[chosen] > NEVER]
        first = int(np.searchsorted(chosen, len(last)))
        kept = stay.select(chosen[:first])
        if first == len(chosen):
            return kept
        source, which = np.divmod(chosen[first:] - len(last), len(spoken))
        words = np.zeros_like(source) if self.lexicon is None else word[source, which]
        return self._extend(state, kept, source, spoken[which], extended[source, which], frame, words)

    def _merge(
        self, state: CTCState, stay: CTCState, extended: np.ndarray, again: np.ndarray, repeat: np.ndarray
    ) -> None:
        """Move extensions `[w, A]` that give a prefix of the beam into the probabilities of that prefix."""
        parent = state.parent_place
        child = np.flatnonzero((parent >= 0) & (again >= 0))
        if not child.size:
            return
        source, which = parent[child], again[child]
        stay.mass[LABEL, child] = np.logaddexp(stay.mass[LABEL, child], extended[source, which])
        allowed = extended[source, which] > NEVER
        extended[source, which] = NEVER
        before, kind = state.best_source(source, state.prefix[LAST, child])
        arriving = np.where(allowed, before + repeat[child], NEVER)
        better = np.flatnonzero(arriving > stay.best[LABEL, child])
        stay.best[LABEL, child[better]] = arriving[better]
        stay.frames[LABEL, :, child[better]] = state.next_frames(source[better], kind[better]).T

    def _extend(
        self,
        state: CTCState,
        kept: CTCState,
        source: np.ndarray,
        label: np.ndarray,
        mass: np.ndarray,
        frame: np.ndarray,
        word: np.ndarray,
    ) -> CTCState:
        """Return `kept` with n more prefixes: those at the places `source` of `state`, with one more label each."""
        numbers = state.prefix[NUMBER, source]
        child = state.history.prefixes.child
        made = [child(*pair) for pair in zip(numbers.tolist(), label.tolist(), strict=True)]
        row = state.prefix[ROW, source]
        lm = state.lm[source]
        if state.scored is not None:
            lm = lm + state.scored.scores[row, label]
        length = state.prefix[LENGTH, source] + 1
        before, kind = state.best_source(source, label)
        never = np.full_like(mass, NEVER)
        ends = state.next_frames(source, kind)
        return replace(
            kept,
            mass=np.concatenate([kept.mass, [never, mass]], 1),
            best=np.concatenate([kept.best, [never, before + frame[label]]], 1),
            frames=np.concatenate([kept.frames, [ends, ends]], 2),
            prefix=np.concatenate([kept.prefix, [made, numbers, label, length, word, np.full_like(row, -1), row]], 1),
            lm=np.concatenate([kept.lm, lm]),
        )

    def _scored(self, state: CTCState) -> CTCState:
        """Return the state with the language model's scores of every prefix of the beam."""
        missing = np.flatnonzero(state.prefix[ROW] < 0)
        if not missing.size:
            return state
        model, scored = self.language_model, state.scored
        assert model is not None
        assert scored is not None
        prefix = state.prefix.copy()
        prefix[ROW, missing] = [scored.rows.get(number, -1) for number in prefix[NUMBER, missing].tolist()]
        missing = np.flatnonzero(prefix[ROW] < 0)
        if missing.size:
            states = model.pick(scored.states, prefix[PARENT_ROW, missing])
            states, scores = model.step(prefix[LAST, missing], states)
            if len(scored.scores) > 4 * self.width:
                known = np.flatnonzero(prefix[ROW] >= 0)
                rows = prefix[ROW, known]
                prefix[ROW, known] = np.arange(len(known))
                kept = dict(zip(prefix[NUMBER, known].tolist(), range(len(known)), strict=True))
                scored = Scored(kept, model.pick(scored.states, rows), scored.scores[rows])
            new = np.arange(len(scored.scores), len(scored.scores) + len(missing))
            prefix[ROW, missing] = new
            scored = Scored(
                scored.rows | dict(zip(prefix[NUMBER, missing].tolist(), new.tolist(), strict=True)),
                model.join(scored.states, states),
                np.concatenate([scored.scores, scores]),
            )
        return replace(state, prefix=prefix, scored=scored)

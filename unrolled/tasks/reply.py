"""Smart reply: ranks short answers to a mail over a set of responses.

Source: Kannan et al. 2016, "Smart Reply: Automated Response Suggestion for Email".
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from unrolled.data.lines import read_json
from unrolled.data.mails import overlap, read_mails, synthetic_mails
from unrolled.data.tokens import Progress
from unrolled.decoding.beam import require_length_penalty
from unrolled.errors import ConfigurationError, DataError, RunError
from unrolled.settings import require
from unrolled.tasks.pairs import ReplyConfig, ReplyInfo
from unrolled.tasks.translation import TranslationTask, prepare
from unrolled.tasks.translator import Translator
from unrolled.training import Run

RESPONSES_FILE = "responses.json"
#: The maximum number of responses that are ranked for a message.
MOST_RESPONSES = 2000


class ReplyTask(ReplyInfo, TranslationTask):
    """A translator of mails into replies."""

    @classmethod
    def prepare(cls, run: Run, settings: ReplyConfig, progress: Progress = lambda what, share: None) -> None:  # type: ignore[override]
        """Prepare the run as for translation, and write the responses to choose from: all replies, each once."""
        mails = read_mails(settings.pairs.pairs) if settings.pairs.pairs else synthetic_mails()
        counts = Counter(" ".join(reply.split()) for reply in mails[1] if reply.strip())
        responses = sorted(counts, key=lambda reply: (-counts[reply], reply))[:MOST_RESPONSES]
        prepare(run, settings.pairs, mails, None)
        text = json.dumps(responses, ensure_ascii=False, indent=0) + "\n"
        (run.path / RESPONSES_FILE).write_text(text, encoding="utf-8")

    def reply(
        self,
        message: str,
        *,
        count: int = 3,
        diversity: float = 1.0,
        responses: Sequence[str] | None = None,
        length_penalty: float = 1.0,
    ) -> list[tuple[str, float]]:
        """Return the `count` best answers to a message, each with its log-probability per token, like `unrolled reply`.

        diversity: the penalty of an answer for the words that it shares with an earlier one.
        responses: the answers to choose from; None: all replies of the training pairs.
        length_penalty: the exponent of the length.

        Only the beginning of a message is read if it is longer than any in training. Raises ConfigurationError if an
        option is out of range or the message is empty, DataError if the message is not text or there are no responses,
        DecodingError if the model's output is NaN.
        """
        require(count >= 1, "count", "at least 1", count)
        require(0 <= diversity < math.inf, "diversity", "0 or above", diversity)
        require_length_penalty(length_penalty)
        try:
            message.encode()
        except UnicodeEncodeError as error:
            raise DataError("the message is not UTF-8 text") from error
        if isinstance(responses, str):
            raise ConfigurationError("`responses` must be a list of strings, not one string", setting="responses")
        if responses is None:
            responses = read_responses(self.run)
        responses = list(dict.fromkeys(filter(None, map(str.strip, responses))))
        if not responses:
            raise DataError("there are no responses to choose from")
        translator = Translator([self])
        ranked = rank_replies(translator, translator.beginning(message), responses, length_penalty)
        return choose_diverse(ranked, count, diversity)


def create_reply_run(path: Path, config: ReplyConfig) -> ReplyTask:
    """Create a run directory with its pairs and its responses."""
    return ReplyTask.create(path, config)


def read_responses(run: Run) -> list[str]:
    """Return the run's responses; RunError if they are missing or damaged."""
    path = run.path / RESPONSES_FILE
    try:
        responses = read_json(path)
    except DataError as error:
        raise RunError(f"no set of responses: {error}") from error
    if not isinstance(responses, list) or not all(isinstance(one, str) for one in responses) or not responses:
        raise RunError(f"{path}: not a list of responses")
    return responses


def rank_replies(
    translator: Translator, message: str, responses: Sequence[str], length_penalty: float = 1.0
) -> list[tuple[str, float]]:
    """Sort the responses by `log P(response | message)` per token, the best first."""
    if not message.strip():
        raise ConfigurationError("the message is empty")
    (scores,) = translator.score([message], [responses])
    ranked = ((text, p / n**length_penalty) for text, (p, n) in zip(responses, scores, strict=True))
    return sorted(ranked, key=lambda entry: -entry[1])


def choose_diverse(ranked: Sequence[tuple[str, float]], count: int, diversity: float) -> list[tuple[str, float]]:
    """Choose `count` of the ranked texts, each the best by its score minus `diversity` times its overlap.

    The overlap of a text is the largest with a text that is already chosen (maximal marginal relevance, Carbonell &
    Goldstein 1998).
    """
    left = list(ranked)
    chosen: list[tuple[str, float]] = []
    nearest = [0.0] * len(left)
    while left and len(chosen) < count:
        best = max(range(len(left)), key=lambda k: left[k][1] - diversity * nearest[k])
        taken = left.pop(best)
        nearest.pop(best)
        chosen.append(taken)
        nearest = [max(near, overlap(text, taken[0])) for near, (text, _) in zip(nearest, left, strict=True)]
    return chosen

"""Incremental conversion of generated tokens to text, up to a stop string."""

from __future__ import annotations

from collections.abc import Sequence

from unrolled.data import StreamingDecoder, Vocabulary


class TextStream:
    """A converter of a stream of tokens to text. `feed` takes a token and returns the text to print.

    stop: the stop string. When the text reaches it, `stopped` becomes true. The stop string itself is not returned, so
        text that may be its beginning is held back until the next tokens decide this.
    context: the prompt's tokens.
    """

    def __init__(self, vocabulary: Vocabulary, stop: str = "", context: Sequence[int] = ()) -> None:
        self._decoder = StreamingDecoder(vocabulary, context)
        self._stop = stop
        self._held = ""
        self.stopped = False

    def feed(self, token: int) -> str:
        return "" if self.stopped else self._pass_on(self._decoder.feed(token))

    def finish(self) -> str:
        """Return the text that was held back, when no more tokens follow."""
        if self.stopped:
            return ""
        text = self._pass_on(self._decoder.finish())
        text, self._held = (text if self.stopped else text + self._held), ""
        return text

    def _pass_on(self, text: str) -> str:
        text = self._held + text
        if self._stop:
            before, found, _ = text.partition(self._stop)
            if found:
                self.stopped, self._held = True, ""
                return before
        keep = next((n for n in range(min(len(self._stop), len(text)), 0, -1) if self._stop.startswith(text[-n:])), 0)
        cut = len(text) - keep
        self._held = text[cut:]
        return text[:cut]

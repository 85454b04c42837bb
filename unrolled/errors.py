"""The errors that a caller can catch. The command line prints each as one line and exits with code 2."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


class UnrolledError(Exception):
    """Base class of every error that the package raises on purpose.

    setting: the name of the setting that the error is about, or that name followed by the others that the message gives
    advice on. A message writes them in backquotes, alone or with a value: "choose another `out`", "use `device=cpu`".
    """

    def __init__(self, message: str = "", *, setting: str | Iterable[str] = ()) -> None:
        super().__init__(message)
        #: Every setting that the message names.
        self.settings: tuple[str, ...] = (setting,) if isinstance(setting, str) else tuple(setting)

    @property
    def setting(self) -> str | None:
        """The setting that the error is about, if there is one."""
        return self.settings[0] if self.settings else None


class ConfigurationError(UnrolledError, ValueError):
    """An invalid setting: an unknown name, a size below one, two options that contradict each other."""


class ShapeError(UnrolledError, RuntimeError):
    """A tensor whose shape is not the one that its receiver was built for."""


class DataError(UnrolledError):
    """Text that is missing, empty, too short or not in the requested format."""


class RunError(UnrolledError):
    """A run directory or a checkpoint that is missing, damaged, foreign or already in use."""


class DivergenceError(UnrolledError):
    """The loss became NaN or infinite."""


class DecodingError(DivergenceError):
    """Log-probabilities of a model by which no token can be chosen: NaN, +inf, or -inf for every token.

    what: which of these. step: the number of tokens chosen before. sentence: the place in the batch. hypothesis: the
    place in the beam or among the given outputs. group: the group of the beam, if it has several. tokens: the tokens of
    the hypothesis so far. Places are counted from 0; what is unknown is None.
    """

    def __init__(
        self,
        what: str,
        *,
        step: int | None = None,
        sentence: int | None = None,
        hypothesis: int | None = None,
        group: int | None = None,
        tokens: tuple[int, ...] | None = None,
    ) -> None:
        super().__init__(what)
        self.what, self.step, self.sentence = what, step, sentence
        self.hypothesis, self.group, self.tokens = hypothesis, group, tokens

    def __str__(self) -> str:
        names = ("step", "sentence", "group", "hypothesis")
        where = ", ".join(f"{name} {getattr(self, name)}" for name in names if getattr(self, name) is not None)
        after = f", after tokens {list(self.tokens)}" if self.tokens else ", before any token"
        after = "" if self.tokens is None else after
        return f"the model's log-probabilities are {self.what}{f' at {where} (counted from 0)' if where else ''}{after}"

    def at(self, **known: Any) -> DecodingError:
        """Return the same error with more, or more exact, values for where it happened."""
        names = ("step", "sentence", "hypothesis", "group", "tokens")
        return DecodingError(self.what, **{name: getattr(self, name) for name in names} | known)


class LostProcessError(RunError):
    """One of the processes that train together has disappeared."""


class ElsewhereError(UnrolledError):
    """An error that another process has raised and reports."""


class UntraceableError(UnrolledError):
    """A cell's step that cannot be compiled; the message names the operation."""


class CompilerError(UnrolledError):
    """This machine cannot compile, or cannot store what it compiled; the message says why."""


class CacheError(CompilerError):
    """A cache that is not used, because others could have changed its content."""


class FallbackWarning(UserWarning):
    """Something runs in a slower way than it could. The warning is issued once for each reason."""


class RecoveryWarning(UserWarning):
    """Something was damaged or lost; the message says what was used in its place."""

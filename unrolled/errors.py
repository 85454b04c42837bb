"""The errors a caller can catch; the command line prints each as one line and exits with code 2."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


class UnrolledError(Exception):
    """Base of every error the package raises on purpose.

    setting: the name of the setting that the error is about, or all names that the message advises on, that one first.
    A message writes them in backquotes, alone or with a value: "choose another `out`", "use `device=cpu`".
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
    """A setting that cannot be meant: an unknown name, a size below one, two options at odds."""


class ShapeError(UnrolledError, RuntimeError):
    """A tensor of another shape than the one its receiver was built for."""


class DataError(UnrolledError):
    """Text that is missing, empty, too short or not in the form that was asked for."""


class RunError(UnrolledError):
    """A run directory or a checkpoint that is missing, damaged, foreign or already taken."""


class DivergenceError(UnrolledError):
    """The loss became NaN or infinite."""


class DecodingError(DivergenceError):
    """A model gave log-probabilities that no token can be chosen by: NaN, +inf, or -inf for every token.

    what: which of these. Where that was, counted from 0, as far as it is known: `step`, how many tokens had been chosen
    before; `sentence`, the place in the batch; `hypothesis`, the place in the beam or among the given outputs; `group`,
    where a beam has several. tokens: those of the hypothesis so far.
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
        """The same error, with more, or better, said of where it was."""
        names = ("step", "sentence", "hypothesis", "group", "tokens")
        return DecodingError(self.what, **{name: getattr(self, name) for name in names} | known)


class LostProcessError(RunError):
    """One of the processes that train together has vanished."""


class ElsewhereError(UnrolledError):
    """An error that another of the processes has raised, and tells."""


class UntraceableError(UnrolledError):
    """A cell's step that cannot be compiled; the message names the operation."""


class CompilerError(UnrolledError):
    """This machine cannot compile, or cannot keep what it compiled; the message says why."""


class CacheError(CompilerError):
    """The cache is not used: others could have changed what is in it."""


class FallbackWarning(UserWarning):
    """Something runs in a slower way than it could; said once for each reason."""


class RecoveryWarning(UserWarning):
    """Something was damaged or lost, and what was used in its place."""

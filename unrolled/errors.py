"""The errors a caller can catch; the command line prints each as one line and exits with code 2."""


class UnrolledError(Exception):
    """Base of every error the package raises on purpose."""


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

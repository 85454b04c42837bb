"""The command line. Each command is a file that is imported on use; every error is one line and exit code 2."""

from __future__ import annotations

import io
import os
import sys
import traceback
import warnings
from collections.abc import Sequence

from unrolled.cells.own import naming_lines
from unrolled.cli import commands
from unrolled.cli.flags import as_flags
from unrolled.errors import ConfigurationError, ElsewhereError, FallbackWarning, RecoveryWarning, UnrolledError

_plain_show_warning = warnings.showwarning


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code: 0 for success, 2 for a user's mistake, 130 for an interrupt."""
    words = _typed() if arguments is None else list(arguments)
    warnings.showwarning = _show_warning
    try:
        with naming_lines(_files_of_tasks):
            code = _dispatch(words)
        sys.stdout.flush()
        return code
    except ElsewhereError:
        return 2
    except UnrolledError as error:
        if isinstance(error, ConfigurationError) and os.environ.get("RANK", "0") != "0":
            return 2  # every process raises it, and the first one reports it
        if os.environ.get("UNROLLED_TRACEBACK"):  # for authors of cells and tasks
            traceback.print_exception(error)
        print(f"unrolled: error: {as_flags(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader, such as `head`, has closed the pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (RuntimeError, MemoryError) as error:
        said = str(error)
        if not (isinstance(error, MemoryError) or "allocate memory" in said or "out of memory" in said):
            raise
        print("unrolled: error: not enough memory; try a smaller model, batch or sequence length", file=sys.stderr)
        return 2
    except OSError as error:
        if error.filename is None and error.errno is None:
            raise
        where = f"{error.filename}: " if error.filename else ""
        print(f"unrolled: error: {where}{error.strerror or error}", file=sys.stderr)
        return 2


def _files_of_tasks() -> set[str]:
    """Return the files of tasks of other packages and programs."""
    from unrolled.tasks import files_elsewhere

    return files_elsewhere()


def _show_warning(message, category, filename, lineno, file=None, line=None) -> None:
    """Show a warning of this package to the user as one line, without the place in the code."""
    if issubclass(category, FallbackWarning | RecoveryWarning):
        print(f"unrolled: note: {message}", file=sys.stderr)
    else:
        _plain_show_warning(message, category, filename, lineno, file, line)


def _typed() -> list[str]:
    """Return the command line decoded as UTF-8, and make the output UTF-8, whatever the locale says.

    Prompts and samples may be in any script. Bytes that are not UTF-8 are kept, because they may be part of a path.
    """
    sys.stdout = sys.stdout or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - closed by the caller
    sys.stderr = sys.stderr or sys.stdout
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="replace")
    return [os.fsencode(word).decode("utf-8", "surrogateescape") for word in sys.argv[1:]]


def _dispatch(words: list[str]) -> int:
    if words[:1] in (["--version"], ["-V"]):
        from unrolled import __version__

        print(f"unrolled {__version__}")
        return 0
    if words[:1] == ["--print-completion"]:
        return _print_completion(words[1:])
    name = commands.name_of(words)
    if name is not None:
        return commands.module_of(name).main(words[len(name.split()) :], prog=f"unrolled {name}")
    asked = not words or words[-1] in ("-h", "--help", "help")
    summaries = commands.summaries()
    group = words[0] if words and any(name.startswith(words[0] + " ") for name in summaries) else ""
    if asked or (group and len(words) == 1):
        _print_commands(group, summaries)
        return 0 if asked else 2
    print(
        f"unrolled: error: unknown command {' '.join(words[:2])!r}; choose from {', '.join(summaries)}",
        file=sys.stderr,
    )
    return 2


def _print_completion(words: list[str]) -> int:
    from unrolled.cli.completion import script

    if len(words) != 1:
        raise ConfigurationError("--print-completion takes one shell: bash, zsh or fish")
    print(script(words[0]), end="")
    return 0


def _print_commands(group: str, summaries: dict[str, str]) -> None:
    print(f"usage: unrolled {group + ' ' if group else ''}COMMAND [OPTIONS]\n")
    for name, summary in summaries.items():
        if name.startswith(group):
            print(f"  unrolled {name:20} {summary}")
    print("\n`unrolled COMMAND --help` shows a command's options. Start with: unrolled train lm")
    print("`unrolled --print-completion bash|zsh|fish` prints a completion script for a shell.")

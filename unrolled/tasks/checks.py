"""Checks of settings that several tasks share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from unrolled.errors import ConfigurationError
from unrolled.settings import require, require_choice

#: Why a setting that chooses what is held out has no effect with `dev`; see `refuse_unused`.
HELD_OUT_BY_DEV = "chooses what is held out for validation, which `dev` names: leave one of the two out"


def require_widths(hidden_size: Sequence[int], num_layers: int | None) -> None:
    """Raise ConfigurationError unless `hidden_size` gives one width, or one for each layer."""
    sizes = " ".join(map(str, hidden_size)) or "none"
    fit = bool(hidden_size) and all(1 <= size <= 65_536 for size in hidden_size)
    require(fit, "hidden_size", "from 1 to 65,536", sizes)
    require(num_layers is None or 1 <= num_layers <= 1000, "num_layers", "from 1 to 1,000", num_layers)
    if num_layers is not None and len(hidden_size) not in (1, num_layers):
        said = f"`hidden_size` gives {len(hidden_size)} widths for {num_layers} layers"
        raise ConfigurationError(said, setting="hidden_size")


def widths_of(hidden_size: Sequence[int], num_layers: int | None, default: int) -> list[int]:
    """Return the hidden size of each layer. default: the number of layers if neither argument gives it."""
    return list(hidden_size) if len(hidden_size) > 1 else [hidden_size[0]] * (num_layers or default)


def require_vectors(vectors: str | None, fix_vectors: bool) -> None:
    """Raise ConfigurationError if vectors are to stay fixed, and there are none."""
    if fix_vectors and vectors is None:
        said = "`fix_vectors` needs word vectors: name a file with `vectors`"
        raise ConfigurationError(said, setting=("fix_vectors", "vectors"))


def refuse_unused(settings: Any, names: Sequence[str], why: str, setting: Sequence[str] = ()) -> None:
    """Raise ConfigurationError for the first of the settings that is not at its default: it would have no effect.

    why: what follows its name in the message. setting: the other settings that `why` names.
    """
    defaults = {each.name: each.default for each in fields(settings)}
    for name in names:
        value = getattr(settings, name)
        if value != defaults[name]:
            shown = f"no_{name}" if value is False else name
            raise ConfigurationError(f"`{shown}` {why}", setting=(shown, *setting))


def require_sound(settings: Any) -> None:
    """Check the settings `features`, `bins`, `rate` and `speeds` of recordings."""
    require_choice("features", settings.features, ("mel", "mfcc"))
    require(1 <= settings.bins <= 256, "bins", "from 1 to 256", settings.bins)
    require_rate(settings.rate)
    for speed in settings.speeds:
        require(0.5 <= speed <= 2, "speeds", "from 0.5 to 2", speed)


def require_rate(rate: int) -> None:
    """Check the samples per second of recordings; 0 if there are none, or if the data say it."""
    require(rate == 0 or 1000 <= rate <= 192_000, "rate", "0, or from 1,000 to 192,000", rate)


def require_augmentation(settings: Any) -> None:
    """Check the settings `tempo`, `noise`, `time_masks` and `feature_masks` of changes to frames in training."""
    require(0 <= settings.tempo <= 0.5, "tempo", "from 0 to 0.5", settings.tempo)
    require(0 <= settings.noise <= 10, "noise", "from 0 to 10", settings.noise)
    for name in ("time_masks", "feature_masks"):
        value = getattr(settings, name)
        require(0 <= value <= 100, name, "from 0 to 100", value)

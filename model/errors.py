"""The root of every error Vidgrain raises on purpose, and those of the model floor.

    VidgrainError
    └── ModelError
        ├── UnknownModel            unknown_model           the name is unknown
        ├── WeightsUnavailable      weights_unavailable     the name is fine, its weights aren't available
        ├── TokenizerUnavailable    tokenizer_unavailable   the architecture's tokenizer isn't available
        ├── CheckpointMismatch      checkpoint_mismatch     keys or shapes of a file don't fit the network
        ├── DeviceUnavailable       device_unavailable      the named device isn't on this machine
        ├── UnknownScorer           unknown_scorer          the model's features can't be scored that way
        ├── DatasetError            dataset_error           annotations or videos of a dataset that can't be read
        │   └── ClipUnreadable      clip_unreadable         one clip's video can't be used; the others may
        ├── TrainingError           training_error          a training that can't start or go on
        │   ├── InvalidTraining     invalid_training        its configuration can't be used
        │   └── TrainingDiverged    training_diverged       its loss or gradients are no longer numbers
        └── ShapeError              shape_mismatch          tensors that don't belong together

The message names the value that was wrong; the hint names the way out. An error about a file keeps its path beside the
message, so that whoever shows it can write the path, the name alone, or nothing.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar


class VidgrainError(Exception):
    """An error with a stable `code` (snake_case)."""

    code: ClassVar[str] = "internal"
    """Names the class of error for programs; it never changes."""

    is_retryable: ClassVar[bool] = False
    """Whether the same request may succeed later."""

    def __init__(self, message: str, hint: str = "", *, path: Path | None = None) -> None:
        super().__init__(message)
        self.message = message
        """What is wrong, as a sentence that names no path of the machine."""
        self.hint = hint
        """The way out; may be empty."""
        self.path = path
        """The file or folder that the message is about."""

    def describe(self, *, folders: bool = True) -> str:
        """The message after its subject: "a.mp4: There is no such file." folders: write its path and not its name."""
        if self.path is None:
            return self.message
        return f"{self.path if folders else self.path.name}: {self.message}"

    def __str__(self) -> str:
        return f"{self.describe()} {self.hint}".strip()


def reason_of(error: Exception, path: Path | None = None) -> str:
    """Why Python or a library failed, for a message that names no path; path: a file or folder that its text may quote.

    The system's errors keep their reason alone ("Permission denied"); other texts keep the name of the path.
    """
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    if path is not None and path.name:
        text = text.replace(str(path), path.name)
    return text.strip() or type(error).__name__


class ModelError(VidgrainError):
    """Anything wrong with a model: its name, its weights or the tensors given to it."""

    code = "model_error"


class UnknownModel(ModelError):
    """The model's name is unknown to the registry."""

    code = "unknown_model"


class WeightsUnavailable(ModelError):
    """The weights can't be fetched or opened on this machine."""

    code = "weights_unavailable"


class TokenizerUnavailable(ModelError):
    """The tokenizer of an architecture can't be fetched or built on this machine."""

    code = "tokenizer_unavailable"


class CheckpointMismatch(ModelError):
    """A checkpoint's keys or shapes don't fit the network; the message names them."""

    code = "checkpoint_mismatch"


class DeviceUnavailable(ModelError):
    """The device named in the settings isn't on this machine."""

    code = "device_unavailable"


class ShapeError(ModelError):
    """Tensors whose shapes don't belong together."""

    code = "shape_mismatch"


class UnknownScorer(ModelError):
    """The scorer doesn't work on this model's features; the hint lists those that do."""

    code = "unknown_scorer"


class DatasetError(ModelError):
    """A dataset's name, its annotations or its folder of videos; the message names the file and the place in it."""

    code = "dataset_error"


class ClipUnreadable(DatasetError):
    """The video of one clip is damaged or too short; readers of many clips count these and go on."""

    code = "clip_unreadable"


class TrainingError(ModelError):
    """A training that can't start, be resumed or go on."""

    code = "training_error"


class InvalidTraining(TrainingError):
    """A training's configuration; the message names the file, the part and the key."""

    code = "invalid_training"


class TrainingDiverged(TrainingError):
    """The loss or a gradient is NaN or infinite; the last good checkpoint is kept."""

    code = "training_diverged"

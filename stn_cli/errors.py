"""The exceptions of `stn_cli`. Each owns the process exit code it leads to and the remedy it suggests.

    StnError                     1    internal: a defect of this program
    ├── UsageError               2    options or configuration that make no sense
    ├── ImageError               3    one input cannot be read as an image; the rest goes on
    ├── GeometryError            3    a transform that has no inverse, or parameters of the wrong shape
    ├── NoInputError             4    nothing to work on
    ├── ModelError               5    a checkpoint is missing, damaged or not one of ours
    ├── OutputExistsError        6    an output exists, or two inputs would write one output; nothing was written
    ├── DeviceError              7    the requested device is not there
    ├── StorageError             8    a file or folder cannot be read or written
    ├── TrainingDataError        9    the data cannot be trained on
    ├── DivergedError            9    training came to a loss that is no number; the last good state is kept
    └── CheckFailedError        10    a verification did not pass

The codes are part of the stable interface. 0 is success, 130 an interruption by the user, 143 one by SIGTERM.
"""

EXIT_OK = 0
EXIT_INTERRUPTED = 130


class StnError(Exception):
    """What failed and why (the message), and what to do next (`remedy`)."""

    exit_code = 1
    default_remedy = "This is a defect of stn; please report it with the command that led here."

    def __init__(self, message: str, *, remedy: str | None = None) -> None:
        super().__init__(message)
        self.remedy = remedy or self.default_remedy


class UsageError(StnError):
    exit_code = 2
    default_remedy = "The same command with --help shows its options."


class ImageError(StnError):
    exit_code = 3
    default_remedy = "Repair the file, or leave it out."


class GeometryError(StnError):
    exit_code = 3
    default_remedy = "The transform is degenerate; use another one."


class NoInputError(StnError):
    exit_code = 4
    default_remedy = "Name at least one image, or a folder that holds some."


class ModelError(StnError):
    exit_code = 5
    default_remedy = "`stn models list` shows the bundled models; `stn models verify PATH` checks one."


class OutputExistsError(StnError):
    exit_code = 6
    default_remedy = "Choose another output with -o, or say --on-exists skip or overwrite."


class DeviceError(StnError):
    exit_code = 7
    default_remedy = "Use --device cpu."


class StorageError(StnError):
    exit_code = 8
    default_remedy = "Check the path, its permissions and the free space."


class TrainingDataError(StnError):
    exit_code = 9
    default_remedy = "See `stn train --help` for the layouts that are understood."


class DivergedError(StnError):
    exit_code = 9
    default_remedy = "Lower learning_rate or clip, and train into a new folder; the states before are kept in this one."


class CheckFailedError(StnError):
    exit_code = 10
    default_remedy = "Fetch the checkpoint again, or train it anew."

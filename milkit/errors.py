"""What can go wrong in a way that the user can correct.

Every message is one sentence with three parts: what was given, what was expected, what to do next. Functions raise;
only the command line prints, and exits with 2. Anything else that is raised is a defect of milkit and keeps its
traceback.
"""


class MilkitError(Exception):
    """The parent of all errors that a user can correct."""

    status = 2
    """Of the command that it ends."""
    shared = False
    """Whether all processes of a job raise it alike, so that the first alone tells it."""


class SettingsError(MilkitError):
    """A recipe, a flag or a factory's argument is not what its type says."""


class UnknownName(MilkitError):
    """A registry, or the folder of recipes, has nothing of this name."""


class CohortError(MilkitError):
    """The patients, the cells or the files of a cohort break a rule."""


class ImageError(MilkitError):
    """One image file cannot be read; ``extract`` catches it and lists the cell as failed."""


class WeightsError(MilkitError):
    """A weights file does not fit the network that it was given for."""


class WeightsMissing(WeightsError):
    """An encoder's weights are neither given nor cached; the command line falls back to the offline default."""


class StoreError(MilkitError):
    """A bag store is missing, incomplete, damaged, locked, or of a newer format."""


class FoldError(MilkitError):
    """The patients cannot be split as asked."""


class TrainingError(MilkitError):
    """A training went astray: its loss is not finite."""


class RunError(MilkitError):
    """A run folder is missing, incomplete, or there already."""


class ReviewError(MilkitError):
    """A blinded review cannot be made, or a reader's file does not fit the one that it is given for."""


class PrivacyError(MilkitError):
    """What is about to be given away may tell who a patient is."""

    status = 3


def first_rows(rows: list[str], limit: int = 5) -> str:
    """The first offending rows (or names), and how many more there are: what a message lists."""
    more = f" and {len(rows) - limit} more" if len(rows) > limit else ""
    return ", ".join(rows[:limit]) + more

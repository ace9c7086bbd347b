"""The tree of errors: what went wrong, whether a retry can help, and the shell's exit code.

Belongs here: classes only. A message says what, where (dataset, batch, column, row), how much, and what to do
next.
"""

from typing import ClassVar


class VaewatchError(Exception):
    """Anything vaewatch raises on purpose; its message is meant for a person."""

    retry_can_help: ClassVar[bool] = False
    exit_code: ClassVar[int] = 1

    @property
    def words(self) -> str:
        """What is told of it where it ends a run."""
        return f"{self}{' (a retry may help)' if self.retry_can_help else ''}"


class ConfigError(VaewatchError):
    """A setting, a dataset file or an argument is wrong: nothing was touched."""

    exit_code = 2


class ContractRefused(VaewatchError):
    """The data breaks its contract as a whole: the same batch fails the same way every time."""

    exit_code = 3


class UnreadableFile(ContractRefused):
    """A file is not the Parquet it claims to be, or needs more memory or time than a batch may take."""


class NotReady(VaewatchError):
    """A step was asked for before what it needs exists (no champion, too few records, unknown batch)."""

    exit_code = 2


class ClaimedByAnother(VaewatchError):
    """Somebody else is reviewing the records of a verdict, so nothing was written. It can be forced."""

    exit_code = 2


class ModelUnusable(VaewatchError):
    """A stored model cannot be read or does not fit the dataset's contract, or a training produced none."""


class CheckCrashed(VaewatchError):
    """A check could not be carried out: this says nothing about the data."""

    retry_can_help = True


class NotDelivered(VaewatchError):
    """A message could not be delivered. The work it reports is done: no step fails or is retried for it."""


class StorageFailed(VaewatchError):
    """Reading or writing storage failed (disk full, permission, conflict): nothing was published."""

    retry_can_help = True


class RegistryUnreachable(VaewatchError):
    """MLflow did not answer, or refused: nothing was changed."""

    retry_can_help = True

"""Every error the project raises on purpose.

    Exception
    └── EdgepruneError            anything raised on purpose; carries an exit code
        ├── UserError             the user can fix it: one sentence that says what to do (exit 2)
        │   ├── BundleError       a bundle is malformed, changed, unsafe or of another schema
        │   ├── DialectError      a graph is not what a pass of a dialect needs, or did not become what it promises
        │   ├── CheckpointError   a checkpoint cannot be found, read or supported
        │   ├── PruningError      an unknown method or parameter, or a count the method cannot serve
        │   └── DependencyError   a package or shared library is missing or too old
        ├── CheckFailed           a check ran and found something (exit 1)
        └── NativeError           libedgeprune reported a status; `status` holds it
Everything else that escapes is a bug and shows its traceback (exit 70).
"""

from __future__ import annotations


class EdgepruneError(Exception):
    """Base of all deliberate errors."""

    exit_code = 70


class UserError(EdgepruneError):
    """The caller can fix this; the message is one sentence that says what to do."""

    exit_code = 2


class BundleError(UserError):
    """A bundle is malformed, changed on disk, unsafe, or written for another schema version."""


class DialectError(UserError):
    """A graph is not what a pass of a dialect needs, or did not become what the pass promises."""


class CheckpointError(UserError):
    """A checkpoint cannot be found, read, or is of a kind that no family serves."""


class PruningError(UserError):
    """An unknown pruning method or parameter, or a keep count that the method cannot serve."""


class DependencyError(UserError):
    """A Python package or a shared library is missing or too old."""


class CheckFailed(EdgepruneError):
    """A check ran to its end and found something."""

    exit_code = 1


class NativeError(UserError):
    """libedgeprune returned a status other than EP_OK.

    Args:
        status: the `ep_status` value, see runtime/include/edgeprune.h.
        message: text of `ep_last_error()`.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status

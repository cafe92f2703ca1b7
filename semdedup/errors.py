"""Everything that semdedup raises on purpose. The list is the list of ways in which a run can be refused or fail."""


class SemdedupError(Exception):
    """Base of every error of semdedup. The message says what was found, what is needed and what to do."""


class ParameterError(SemdedupError, ValueError):
    """A parameter has a value that it cannot have. Raised on the client before work starts."""


class InputError(SemdedupError):
    """The input as a whole cannot be used: no such path, no files, no rows, pickles, an id given twice."""


class BadFileError(InputError):
    """A file cannot be read: corrupt, a column missing, a column of the wrong type, no row of the expected length."""


class DuplicateIdError(InputError):
    """The same id stands in the input more than once, so that an answer in ids would be ambiguous."""


class StorageError(SemdedupError):
    """A path cannot be read or written: permissions, credentials, a full disk, a bucket that is not there.

    `passing` tells whether the same operation may succeed later, `lasting` whether it was tried several times already.
    """

    passing = False
    lasting = False


class OutputConflictError(SemdedupError):
    """The output folder holds results of other parameters or of other input."""


class ClusterError(SemdedupError):
    """The Dask cluster cannot do the work: versions differ, a worker does not see a path, no GPU, workers die."""


class IntegrityError(SemdedupError):
    """Rows were lost or invented on the way. The output was not committed; this is a defect of semdedup: report it."""

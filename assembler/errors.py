"""The one exception people see: a sentence that names the place, what is wrong and what to do."""


class AssemblerError(Exception):
    """Something the user can put right; the command line prints it and exits with 1."""

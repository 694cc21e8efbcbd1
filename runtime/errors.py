"""The one exception that is the user's to repair."""


class UserError(Exception):
    """Something outside the program is wrong: a configuration, a file, a command.

    Its message is one line that names the file or key, says what is wrong and what to do.
    The command line prints it without a traceback and exits with status 2.
    """

    def __str__(self) -> str:
        """In one line, though names of files may hold line feeds."""
        return super().__str__().replace("\n", "\\n")

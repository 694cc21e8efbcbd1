"""The one exception that is the user's to repair, and what others say in a line."""


class UserError(Exception):
    """Something outside the program is wrong: a configuration, a file, a command.

    Its message is one line that names the file or key, says what is wrong and what to do.
    The command line prints it without a traceback and exits with status 2.
    """

    def __str__(self) -> str:
        """In one line, though names of files may hold line feeds."""
        return super().__str__().replace("\n", "\\n")


def first_line(error: BaseException) -> str:
    """What an error says, in one line."""
    lines = str(error).strip().splitlines()
    return lines[0].strip() if lines else type(error).__name__

"""Files and folders that options name, looked at before anything is loaded."""

from pathlib import Path

from bdl.runtime.errors import UserError


def require_path(path: Path, wanted: str) -> None:
    """Raises UserError if there is nothing at `path`; `wanted` says what to give."""
    if not path.exists():
        raise UserError(f"{path}: no such file or folder; give {wanted}")

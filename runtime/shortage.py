"""Errors that say that the machine has too little memory, told from their types and texts alone.

They come from NumPy, PyTorch and the system, each in words of its own.
"""

import errno
import re

_NO_MEMORY = re.compile(
    r"out of memory|can't allocate memory|cannot allocate memory|not enough memory|"
    r"(CUBLAS|CUSOLVER|CUDNN)_STATUS_ALLOC_FAILED",
    re.IGNORECASE,
)
_LOST_WORKER = re.compile(
    r"DataLoader worker \(pid.*(is killed|exited unexpectedly)|"
    r"insufficient shared memory|unable to (open|allocate).* shared memory|"
    r"unable to (mmap|write|resize).*/torch_",
    re.IGNORECASE,
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether `error` says that main memory, or a device's, does not suffice."""
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    # torch.OutOfMemoryError is a RuntimeError.
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and bool(_NO_MEMORY.search(str(error)))
    )


def is_lost_worker(error: BaseException) -> bool:
    """Whether `error` says that a process that loads images was ended from outside, or found no
    shared memory: where memory runs out, the system ends these first."""
    return isinstance(error, RuntimeError) and bool(_LOST_WORKER.search(str(error)))

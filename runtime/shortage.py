"""Errors that say that the machine gives too little memory, or processes, told from their texts.

They come from NumPy, PyTorch and the system, each in words of its own.
"""

import errno
import re

_NO_ROOM_FOR_CODE = "failed to map segment"  # of a library's file, in the linker's words
_NO_THREAD = "can't start new thread"
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


def is_too_little_to_begin(error: BaseException) -> bool:
    """Whether `error` says that the libraries themselves do not fit into memory."""
    return isinstance(error, ImportError) and _NO_ROOM_FOR_CODE in str(error)


def is_out_of_processes(error: BaseException) -> bool:
    """Whether `error` says that no further process or thread may begin."""
    if isinstance(error, OSError):
        return error.errno == errno.EAGAIN
    return isinstance(error, RuntimeError) and _NO_THREAD in str(error)


def is_lost_worker(error: BaseException) -> bool:
    """Whether `error` says that a process that loads images was ended from outside, or found no
    shared memory: where memory runs out, the system ends these first."""
    return isinstance(error, RuntimeError) and bool(_LOST_WORKER.search(str(error)))

"""Becomes the command that it is given, in a process whose io_uring_setup fails as in a container that forbids it.

    forbid_io_uring.py EPERM|ENOSYS COMMAND...

Exits with 77 where the kernel does not take the filter.
"""

import ctypes
import errno
import os
import struct
import sys

PR_SET_NO_NEW_PRIVS = 38
PR_SET_SECCOMP = 22
SECCOMP_MODE_FILTER = 2
# The same number on every architecture.
IO_URING_SETUP = 425

BPF_LOAD_WORD = 0x20
BPF_JUMP_EQUAL = 0x15
BPF_RETURN = 0x06
RETURN_ERRNO = 0x00050000
RETURN_ALLOW = 0x7FFF0000

wanted = getattr(errno, sys.argv[1])
instructions = [
    (BPF_LOAD_WORD, 0, 0, 0),  # the number of the system call
    (BPF_JUMP_EQUAL, 0, 1, IO_URING_SETUP),
    (BPF_RETURN, 0, 0, RETURN_ERRNO | wanted),
    (BPF_RETURN, 0, 0, RETURN_ALLOW),
]


class Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_char_p)]


libc = ctypes.CDLL(None, use_errno=True)
text = b"".join(struct.pack("HBBI", *instruction) for instruction in instructions)
program = Program(len(instructions), text)
libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
if libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0) != 0:
    sys.exit(77)
# A filter that does not bite would have the test pass for nothing.
parameters = ctypes.create_string_buffer(120)
if libc.syscall(IO_URING_SETUP, 8, parameters) != -1 or ctypes.get_errno() != wanted:
    sys.exit(77)
os.execvp(sys.argv[2], sys.argv[2:])

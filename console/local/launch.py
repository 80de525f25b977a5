"""Program that starts one program which must not outlive its parent: `launch.py [--user=NAME]
[--nice=N] [--prompt] -- PROGRAM ARGUMENTS...`.

The kernel ends the program when the process that started it dies, however that happened (prctl(2),
PR_SET_PDEATHSIG; Linux only: elsewhere the supervisor's own stop is all there is). With `--user` it
gives up root first, as PostgreSQL demands.

It imports nothing of ours: it starts with -I, which hides our packages from it.
"""

from __future__ import annotations

import ctypes
import os
import platform
import pwd
import signal
import sys
from typing import NoReturn

# Variable with the process id of the parent that must live; not passed on.
PARENT_PID = "SLUICE_PARENT_PID"
# Variable in which a program finds its own process id, to name itself as others' parent.
OWN_PID = "SLUICE_OWN_PID"
# Number of the system call by machine: the C library of older systems has no function for it.
_SCHED_SETATTR = {"x86_64": 314, "aarch64": 274}
# Nanoseconds. The kernel takes no shorter turn (EEVDF, Linux 6.12).
_SLICE_NS = 100_000
# From <linux/prctl.h>: Python has no name for it.
_PR_SET_PDEATHSIG = 1


class _SchedAttr(ctypes.Structure):
    """struct sched_attr of sched_setattr(2); the kernel reads the fields in this order."""

    _fields_ = [
        *(
            ("size", ctypes.c_uint32),
            ("policy", ctypes.c_uint32),
            ("flags", ctypes.c_uint64),
            ("nice", ctypes.c_int32),
        ),
        *(
            ("priority", ctypes.c_uint32),
            ("runtime", ctypes.c_uint64),
            ("deadline", ctypes.c_uint64),
            ("period", ctypes.c_uint64),
        ),
    ]


def tied_command(
    program: list[str], *, user: str = "", nice: int = 0, prompt: bool = False
) -> list[str]:
    """Return the argument list that starts `program` tied to its parent.

    `user` is whom root becomes first; `nice` lets others go first (nice(2)); `prompt` asks for
    short turns, soon, instead of long ones later.
    """
    drop = [f"--user={user}"] if user else []
    calm = [f"--nice={nice}"] if nice else []
    soon = ["--prompt"] if prompt else []
    # -I: neither the current folder nor the user's packages may stand in for what is imported here
    this = [sys.executable, "-I", os.path.abspath(__file__)]  # noqa: PTH100 - spares an import
    return [*this, *drop, *calm, *soon, "--", *program]


def end_with_parent() -> None:
    """Let the kernel end this process when its parent dies; do nothing where it cannot.

    Exit at once when the parent that PARENT_PID names died before this was in force.
    """
    parent = os.environ.pop(PARENT_PID, "")
    if sys.platform == "linux":
        # TERM and not KILL: PostgreSQL and Valkey then end cleanly
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        if parent and os.getppid() != int(parent):
            sys.exit("the process that started this one is gone")


def ask_for_short_turns() -> None:
    """Ask the scheduler to wake this process soon when others compute: 0.1 ms at a time instead of
    3 (EEVDF, Linux 6.12).

    Measured with three processes computing on two cores: 90 % of wake-ups within 0.2 ms instead of
    0.7 when those are nicer, and within 4 ms instead of 6 when they are not. An older kernel
    ignores it or refuses; either is fine.
    """
    number = _SCHED_SETATTR.get(platform.machine()) if sys.platform == "linux" else None
    if number is not None:
        # the call sets the niceness too, so it is told the present one
        turn = _SchedAttr(size=ctypes.sizeof(_SchedAttr), nice=os.nice(0), runtime=_SLICE_NS)
        ctypes.CDLL(None).syscall(number, 0, ctypes.byref(turn), 0)


def become_user(name: str) -> None:
    """Give up root for the user, for good.

    Raises:
        OSError: when the kernel refuses to change the user.
        KeyError: when there is no such user.
    """
    user = pwd.getpwnam(name)
    # in this order: once the user is changed, the groups no longer can be
    os.initgroups(name, user.pw_gid)
    os.setgid(user.pw_gid)
    os.setuid(user.pw_uid)


def main() -> NoReturn:
    split = sys.argv.index("--")
    program = sys.argv[split + 1 :]
    for option in sys.argv[1:split]:
        if option.startswith("--user="):
            become_user(option.removeprefix("--user="))
        if option.startswith("--nice="):
            os.nice(int(option.removeprefix("--nice=")))
    if "--prompt" in sys.argv[1:split]:
        ask_for_short_turns()
    # after become_user: a change of user takes the death signal back (prctl(2))
    end_with_parent()
    os.environ[OWN_PID] = str(os.getpid())
    # becoming the program keeps the process id, which the tie is about
    os.execv(program[0], program)  # noqa: S606


if __name__ == "__main__":
    main()

"""Launcher of a program that must not outlive its parent process: `launch.py [--user=NAME]
[--nice=N] [--prompt] -- PROGRAM ARGUMENTS...`.

On Linux, the kernel ends the program when its parent dies, however that happens (prctl(2),
PR_SET_PDEATHSIG). On other systems only the supervisor's own stop ends it. With `--user`, the
launcher first gives up root, as PostgreSQL demands.

The launcher imports nothing of ours: it runs with -I, which hides our packages.
"""

from __future__ import annotations

import ctypes
import os
import platform
import pwd
import signal
import sys
from typing import NoReturn

# Variable with the process id of the parent; the program does not inherit it.
PARENT_PID = "SLUICE_PARENT_PID"
# Variable in which a program finds its own process id, to be the PARENT_PID of its children.
OWN_PID = "SLUICE_OWN_PID"
# Number of the system call sched_setattr by machine: older C libraries have no function for it.
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

    Root becomes `user` first, unless that is empty. `nice` is added to the niceness (nice(2)).
    `prompt` asks the scheduler for short turns that come soon (`ask_for_short_turns`).
    """
    drop = [f"--user={user}"] if user else []
    calm = [f"--nice={nice}"] if nice else []
    soon = ["--prompt"] if prompt else []
    # -I: no module of the current folder or of the user may replace what is imported here
    this = [sys.executable, "-I", os.path.abspath(__file__)]  # noqa: PTH100 - spares an import
    return [*this, *drop, *calm, *soon, "--", *program]


def end_with_parent() -> None:
    """Let the kernel end this process when its parent dies; do nothing on systems but Linux.

    Exit at once if the parent that PARENT_PID names is already dead.
    """
    parent = os.environ.pop(PARENT_PID, "")
    if sys.platform == "linux":
        # TERM and not KILL: PostgreSQL and Valkey then end cleanly
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        if parent and os.getppid() != int(parent):
            sys.exit("launch.py: the parent process has ended, so the program was not started")


def ask_for_short_turns() -> None:
    """Ask the scheduler to wake this process soon while others compute, in turns of 0.1 ms instead
    of 3 ms (EEVDF, Linux 6.12).

    Measured while three other processes computed on two cores: 90 % of wake-ups came within 0.2 ms
    instead of 0.7 ms if the others were nicer, else within 4 ms instead of 6 ms. An older kernel
    ignores or refuses the request, which does no harm.
    """
    number = _SCHED_SETATTR.get(platform.machine()) if sys.platform == "linux" else None
    if number is not None:
        # the call also sets the niceness, so it gets the present one
        turn = _SchedAttr(size=ctypes.sizeof(_SchedAttr), nice=os.nice(0), runtime=_SLICE_NS)
        ctypes.CDLL(None).syscall(number, 0, ctypes.byref(turn), 0)


def become_user(name: str) -> None:
    """Turn this process of root into one of the user, for good.

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
    # after become_user: a change of user clears the death signal (prctl(2))
    end_with_parent()
    os.environ[OWN_PID] = str(os.getpid())
    # exec keeps the process id, and with it the tie to the parent
    os.execv(program[0], program)  # noqa: S606


if __name__ == "__main__":
    main()

"""Starts one program that must not outlive its parent: `launch.py [--user=NAME] [--nice=N]
[--prompt] -- PROGRAM ARGUMENTS...`.

The kernel ends the program when the process that started it dies, however that happened (prctl(2),
PR_SET_PDEATHSIG; Linux only: elsewhere the supervisor's own stop is all there is). With `--user` it
gives up root first, as PostgreSQL demands.
"""

from __future__ import annotations

import ctypes
import os
import platform
import pwd
import signal
import sys
from typing import NoReturn

# Variable with the process id of who holds the leash; not passed on.
HOLDER = "SLUICE_LEASH_HOLDER"
# Variable in which a leashed program finds its own process id, to hold others by.
OWN_PID = "SLUICE_LEASH_PID"
# Number of the system call by machine.
_SCHED_SETATTR = {"x86_64": 314, "aarch64": 274}
# The shortest turn that may be asked for, nanoseconds.
_SLICE_NS = 100_000
_PR_SET_PDEATHSIG = 1


class _Turn(ctypes.Structure):
    """struct sched_attr of sched_setattr(2)."""

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


def command(
    program: list[str], *, user: str = "", nice: int = 0, prompt: bool = False
) -> list[str]:
    """The argument list that starts `program` tied to its parent.

    `user` is whom root becomes first; `nice` lets others go first (nice(2)); `prompt` asks for
    short turns, soon, instead of long ones later.
    """
    drop = [f"--user={user}"] if user else []
    calm = [f"--nice={nice}"] if nice else []
    soon = ["--prompt"] if prompt else []
    return [sys.executable, "-I", os.path.abspath(__file__), *drop, *calm, *soon, "--", *program]  # noqa: PTH100 - runs before imports are set up


def end_with_parent() -> None:
    """Has this process ended when its parent dies; does nothing where the kernel cannot.

    A parent that names itself in HOLDER may even die before this is in force.
    """
    holder = os.environ.pop(HOLDER, "")
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        if holder and os.getppid() != int(holder):
            sys.exit("the process that started this one is gone")


def ask_for_short_turns() -> None:
    """Has the scheduler wake this process soon when others compute: 0.1 ms at a time instead of 3
    (EEVDF, Linux 6.12).

    Measured with three processes computing on two cores: 90 % of wake-ups within 0.2 ms instead of
    0.7 when those are nicer, and within 4 ms instead of 6 when they are not. An older kernel
    ignores it or refuses; either is fine.
    """
    number = _SCHED_SETATTR.get(platform.machine()) if sys.platform == "linux" else None
    if number is not None:
        turn = _Turn(size=ctypes.sizeof(_Turn), nice=os.nice(0), runtime=_SLICE_NS)
        ctypes.CDLL(None).syscall(number, 0, ctypes.byref(turn), 0)


def become(name: str) -> None:
    """Gives up root for the user.

    Raises:
        OSError: when the kernel refuses to change the user.
    """
    user = pwd.getpwnam(name)
    os.initgroups(name, user.pw_gid)
    os.setgid(user.pw_gid)
    os.setuid(user.pw_uid)


def main() -> NoReturn:
    split = sys.argv.index("--")
    program = sys.argv[split + 1 :]
    for option in sys.argv[1:split]:
        if option.startswith("--user="):
            become(option.removeprefix("--user="))
        if option.startswith("--nice="):
            os.nice(int(option.removeprefix("--nice=")))
    if "--prompt" in sys.argv[1:split]:
        ask_for_short_turns()
    end_with_parent()
    os.environ[OWN_PID] = str(os.getpid())
    os.execv(program[0], program)  # noqa: S606 - that is the point


if __name__ == "__main__":
    main()

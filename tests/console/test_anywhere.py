"""The two commands work from any folder: closed to others, read-only, with spaces in its name; and
what root starts runs as another user.
"""

from __future__ import annotations

import importlib.util
import json
import os
import pwd
import re
import shutil
import stat
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

import pytest

import bootstrap
import installation
import unprivileged
from installation import InstallationError

ROOT = Path(__file__).parents[2]
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, who can become another user")
with_make = pytest.mark.skipif(shutil.which("make") is None, reason="needs make")


@pytest.fixture
def closed(open_folder: Path) -> Path:
    """A copy of the checkout in a folder that only its owner may enter."""
    outer = open_folder / "closed one"
    outer.mkdir(mode=0o700)
    return copy_checkout(outer / "a checkout")


def copy_checkout(target: Path) -> Path:
    names = [path.relative_to(ROOT) for path in installation.code_files()]
    names += [Path("Makefile"), Path("bootstrap.py"), Path("pyproject.toml")]
    names += [Path("requirements.lock"), Path("requirements-dev.lock")]
    for name in names:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, target / name)
    return target


def ready_home(folder: Path) -> Path:
    """A home whose environment is the one that runs these tests, marked as holding the lock."""
    venv = folder / ".venv"
    venv.mkdir(parents=True)
    for name in ("bin", "lib"):
        (venv / name).symlink_to(Path(sys.prefix) / name)
    shutil.copy(Path(sys.prefix) / "pyvenv.cfg", venv)
    (venv / ".installed").write_text(bootstrap.lock_stamp(ROOT / "requirements-dev.lock"))
    return folder


def without(*names: str, **more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in names}
    return kept | more


def run(*command: str | Path, cwd: Path, env: dict[str, str], **more: object) -> str:
    """What a program that must succeed wrote."""
    done = subprocess.run(
        command,
        cwd=cwd,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        **more,  # type: ignore[call-overload]
    )
    assert done.returncode == 0, done.stdout
    return str(done.stdout)


def files_below(folder: Path) -> set[Path]:
    return set(folder.rglob("*"))


PROBE = """
import sys, installation, unprivileged
unprivileged.enter(sys.argv)
import json, os, signal, subprocess
import psutil, psycopg
from console.local import programs as local_programs, servers
from console.local.supervisor import Supervisor
from django.core.exceptions import ImproperlyConfigured
data = installation.data_folder() / "postgres"
postgres = servers.Postgres(data, servers.free_port(), "it's a secret")
postgres.make()
server = subprocess.Popen(postgres.command(), stderr=subprocess.DEVNULL)
servers.wait_until_ready(postgres)
print(json.dumps({
    "me": os.getuid(), "server": psutil.Process(server.pid).uids().real,
    "code": str(installation.CHECKOUT), "var": str(installation.data_folder()),
    "groups": os.getgroups(), "python": sys.executable,
}))
server.send_signal(signal.SIGINT)
server.wait()
"""


@as_root
def test_root_starts_postgresql_from_a_folder_that_only_root_may_enter(
    open_folder: Path, closed: Path
) -> None:
    (closed / "manage.py").write_text(PROBE)
    place = open_folder / "its home"
    before = stat.S_IMODE(closed.parent.stat().st_mode)
    said = run(
        sys.executable,
        "manage.py",
        "up",
        cwd=closed,
        env=without("SLUICE_VAR", "SLUICE_USER", SLUICE_HOME=str(place)),
    )
    found = json.loads(said.splitlines()[-1])
    nobody = pwd.getpwnam("nobody")
    assert (found["me"], found["server"]) == (nobody.pw_uid, nobody.pw_uid)
    assert found["groups"] in ([], [nobody.pw_gid])
    assert found["code"] == str(place / "code")
    assert found["var"] == str(place / "var")
    assert stat.S_IMODE(closed.parent.stat().st_mode) == before == 0o700
    assert stat.S_IMODE((place / "var").stat().st_mode) == 0o700


@as_root
def test_a_python_that_only_root_may_run_is_copied(open_folder: Path, closed: Path) -> None:
    libraries = Path(unprivileged.sysconfig.get_path("purelib"))
    nobody = pwd.getpwnam("nobody")
    name = f"python{sys.version_info.major}.{sys.version_info.minor}"
    unprivileged.copy_python(open_folder / "hidden", name, libraries, "", nobody)
    hidden = closed.parent / "hidden"
    (open_folder / "hidden").rename(hidden)
    for library in (hidden / unprivileged.SHARED).glob("*"):  # where an original has it
        library.rename(hidden / "lib" / library.name)
    venv = open_folder / "venv"
    (venv / "bin").mkdir(parents=True)
    (venv / "bin" / "python").symlink_to(hidden / "bin" / name)
    (venv / "pyvenv.cfg").write_text(f"home = {hidden / 'bin'}\n")
    (venv / "lib").symlink_to(Path(sys.prefix) / "lib")
    (closed / "manage.py").write_text(PROBE)
    place = open_folder / "home"
    said = run(
        venv / "bin" / "python",
        "manage.py",
        "up",
        cwd=closed,
        env=without("SLUICE_VAR", "SLUICE_USER", SLUICE_HOME=str(place))
        | {"LD_LIBRARY_PATH": str(hidden / "lib")},
    )
    assert json.loads(said.splitlines()[-1])["python"] == str(place / ".python" / "bin" / name)


@as_root
def test_roots_home_is_below_var_lib_where_the_user_may_not_read_the_checkout(closed: Path) -> None:
    ask = "import installation; print(installation.home_folder())"
    env = without("SLUICE_HOME", "SLUICE_USER")
    said = run(sys.executable, "-c", ask, cwd=closed, env=env).strip()
    assert re.fullmatch(r"/var/lib/sluice/[0-9a-f]{8}", said)
    closed.parent.chmod(0o755)
    assert run(sys.executable, "-c", ask, cwd=closed, env=env).strip() == str(closed)


@as_root
def test_the_copy_of_the_code_is_the_users_alone_and_holds_no_hidden_file(
    open_folder: Path, closed: Path
) -> None:
    (closed / "console" / ".env").write_text("SECRET=1")
    (closed / "console" / "leads_out.py").symlink_to("/etc/passwd")
    (closed / "console" / "added.py").write_text("one = 1\n")
    nobody, place = pwd.getpwnam("nobody"), open_folder / "home"
    place.mkdir()
    copy = (
        "import pwd, installation, unprivileged; from pathlib import Path;"
        f"unprivileged.copy_code(Path({str(place)!r}), pwd.getpwnam('nobody'))"
    )
    run(sys.executable, "-c", copy, cwd=closed, env=dict(os.environ))
    made = place / "code"
    assert not list(made.rglob(".*"))
    assert not (made / "console" / "leads_out.py").exists()
    assert not (made / "tests").exists()
    assert installation.can_read(nobody, [made / "manage.py", made / "console" / "added.py"])
    found = made.stat()
    assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (0, nobody.pw_gid, 0o750)
    (closed / "console" / "added.py").unlink()
    (closed / "manage.py").write_text("changed = 1\n")
    run(sys.executable, "-c", copy, cwd=closed, env=dict(os.environ))
    assert not (made / "console" / "added.py").exists()
    assert (made / "manage.py").read_text() == "changed = 1\n"


@as_root
def test_data_of_an_earlier_run_by_root_is_handed_over_but_no_file_with_a_second_name(
    open_folder: Path,
) -> None:
    var, nobody = open_folder / "var", pwd.getpwnam("nobody")
    (var / "keys").mkdir(parents=True)
    (var / "keys" / "a.key").write_text("secret")
    (open_folder / "not of the data").write_text("root's")
    (var / "hard").hardlink_to(open_folder / "not of the data")
    (var / "soft").symlink_to(open_folder / "not of the data")
    unprivileged.hand_over(var, nobody)
    for path in (var, var / "keys", var / "keys" / "a.key"):
        assert path.stat().st_uid == nobody.pw_uid
    assert (open_folder / "not of the data").stat().st_uid == 0


@as_root
def test_data_of_somebody_else_is_refused_with_what_to_set(open_folder: Path) -> None:
    var = open_folder / "var"
    var.mkdir()
    os.chown(var, pwd.getpwnam("daemon").pw_uid, -1)
    with pytest.raises(InstallationError, match=r"the user daemon; .* SLUICE_USER=daemon"):
        unprivileged.hand_over(var, pwd.getpwnam("nobody"))


@as_root
def test_a_command_beside_up_runs_as_the_datas_owner(open_folder: Path) -> None:
    checkout = copy_checkout(open_folder / "checkout")
    (checkout / "manage.py").write_text(
        "import sys, unprivileged\nunprivileged.enter(sys.argv)\nimport os\nprint(os.getuid())\n"
    )
    daemon = pwd.getpwnam("daemon")
    for owner in (0, daemon.pw_uid):
        var = open_folder / f"var of {owner}"
        var.mkdir()
        os.chown(var, owner, -1)
        env = without("SLUICE_HOME", SLUICE_VAR=str(var))
        said = run(sys.executable, "manage.py", "switch", cwd=checkout, env=env)
        assert int(said) == owner


@as_root
@pytest.mark.parametrize("how", ["another's", "open", "link"])
def test_root_takes_no_home_that_others_could_change(open_folder: Path, how: str) -> None:
    place = open_folder / "home"
    place.mkdir()
    if how == "another's":
        os.chown(place, pwd.getpwnam("daemon").pw_uid, -1)
    elif how == "open":
        place.chmod(0o777)
    else:
        place.rmdir()
        place.symlink_to(tempfile.gettempdir())
    with pytest.raises(InstallationError, match=r"Other users could change .* SLUICE_HOME"):
        installation.claim_home(place)


@as_root
def test_root_takes_no_home_that_the_user_may_not_enter(closed: Path) -> None:
    with pytest.raises(InstallationError, match="runs as the user nobody, who may not enter"):
        installation.claim_home(closed.parent / "home")


@pytest.mark.parametrize(
    ("name", "says"), [("no-such-user", "There is no user no-such-user"), ("root", "PostgreSQL")]
)
def test_a_user_that_cannot_be_is_a_sentence(
    monkeypatch: pytest.MonkeyPatch, name: str, says: str
) -> None:
    monkeypatch.setenv("SLUICE_USER", name)
    with pytest.raises(InstallationError, match=says):
        installation.service_user()


def as_ordinary_user() -> dict[str, object]:
    if os.geteuid() != 0:
        return {}
    daemon = pwd.getpwnam("daemon")
    return {"user": daemon.pw_uid, "group": daemon.pw_gid, "extra_groups": []}


def python_for_all() -> str:
    """A Python that an ordinary user may run, or a skip that says so."""
    for name in (sys.executable, "/usr/bin/python3", "/usr/local/bin/python3"):
        found = subprocess.run(
            [
                "/bin/sh",
                "-c",
                '"$1" -c "import sys; sys.exit(sys.version_info < (3, 11))"',
                "-",
                name,
            ],
            capture_output=True,
            check=False,
            cwd="/",
            **as_ordinary_user(),  # type: ignore[call-overload]
        )
        if found.returncode == 0:
            return name
    pytest.skip("needs a Python 3.11 or newer that an ordinary user may run, in /usr/bin")


def test_a_read_only_checkout_without_a_home_says_in_one_sentence_what_to_set(
    open_folder: Path,
) -> None:
    checkout = copy_checkout(open_folder / "a checkout")
    for path in (checkout, *checkout.rglob("*")):
        path.chmod(path.stat().st_mode & ~0o222)
    done = subprocess.run(
        [python_for_all(), "-B", "bootstrap.py", "python", "manage.py", "up"],
        cwd=checkout,
        env=without("SLUICE_HOME", "SLUICE_VAR"),
        capture_output=True,
        text=True,
        check=False,
        **as_ordinary_user(),  # type: ignore[call-overload]
    )
    for path in (checkout, *checkout.rglob("*")):
        path.chmod(path.stat().st_mode | 0o200)
    assert done.returncode == 1
    assert done.stderr.startswith(f"sluice: This user cannot write to {checkout}; set SLUICE_HOME")
    assert done.stderr.count("\n") == 1


@with_make
def test_make_works_from_a_home_elsewhere_and_writes_nothing_in_the_checkout(
    open_folder: Path,
) -> None:
    checkout = copy_checkout(open_folder / "a checkout")
    (checkout / "tests").mkdir()
    (checkout / "tests" / "test_it.py").write_text(
        "from hypothesis import given, strategies\n"
        "from decider.policy import decide\n"
        "@given(strategies.integers())\ndef test_it(n): assert decide is not None\n"
    )
    place = ready_home(open_folder / "its home")
    before = files_below(checkout)
    alien = ("SLUICE_VAR", "PYTHONPYCACHEPREFIX", "PYTHONDONTWRITEBYTECODE", "MAKEFLAGS")
    env = without(*alien, SLUICE_HOME=str(place))
    python = open_folder / "a python"  # a Python may have a space in its name, too
    python.symlink_to(sys.executable)
    arguments = "-p no:django -c /dev/null --rootdir=. --cov=tests --cov-config=/dev/null"
    arguments += " --cov-report= tests/test_it.py"
    said = run("make", "test", f"ARGS={arguments}", f"PYTHON={python}", cwd=checkout, env=env)
    assert "1 passed" in said
    assert f"Sluice's libraries and data are in {place}." in said
    assert (place / "cache" / "pytest").is_dir()
    assert list((place / "cache" / "python").rglob("policy.*.pyc"))
    assert (place / "cache" / "coverage" / ".coverage").is_file()
    (place / "var").mkdir()
    run("make", "clean", f"PYTHON={python}", cwd=checkout, env=env)
    assert {path.name for path in place.iterdir()} == {".venv"}
    assert files_below(checkout) == before


def test_make_clean_keeps_the_data_of_a_running_installation(
    monkeypatch: pytest.MonkeyPatch, open_folder: Path
) -> None:
    import socket

    monkeypatch.setenv("SLUICE_HOME", str(open_folder))
    monkeypatch.delenv("SLUICE_VAR", raising=False)
    monkeypatch.setattr(installation, "CACHES", ())
    monkeypatch.setattr(installation, "COVERAGE_DATA", ())
    (open_folder / "var" / "run").mkdir(parents=True)
    (open_folder / "var" / "run" / "up.pid").write_text(str(os.getpid()))
    with socket.socket(socket.AF_UNIX) as supervisor:
        supervisor.bind(str(open_folder / "var" / "run" / "supervisor.sock"))
        with pytest.raises(InstallationError, match="still running"):
            installation.forget_data()
    (open_folder / "var" / "run" / "up.pid").write_text("")
    installation.forget_data()
    assert not (open_folder / "var").exists()


def test_make_clean_removes_the_data_of_coverage_but_not_its_configuration(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    checkout = tmp_path / "checkout"
    checkout.mkdir()
    monkeypatch.setattr(installation, "CHECKOUT", checkout)
    monkeypatch.setenv("SLUICE_HOME", str(checkout))
    monkeypatch.delenv("SLUICE_VAR", raising=False)
    for name in (".coverage", ".coverage.host.1.x", ".coveragerc"):
        (checkout / name).touch()
    installation.forget_data()
    assert {path.name for path in checkout.iterdir()} == {".coveragerc"}


@pytest.mark.parametrize("library", ["lightgbm", "scipy", "sklearn", "django", "rest_framework"])
def test_slow_libraries_are_compiled_when_they_are_installed(library: str) -> None:
    """Many containers forbid Python to keep what it compiled at an import, and so does this test's
    own environment, perhaps.
    """
    venv = ROOT / ".venv"
    if not venv.exists() or Path(sys.prefix).resolve() != venv.resolve():
        pytest.skip("these tests do not run in the environment that bootstrap.py makes")
    found = importlib.util.find_spec(library)
    assert found is not None and found.origin is not None
    assert Path(importlib.util.cache_from_source(found.origin)).is_file()


def test_the_supported_pythons_are_the_same_everywhere() -> None:
    oldest, newest = bootstrap.OLDEST, bootstrap.NEWEST
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    above = f"{newest[0]}.{newest[1] + 1}"
    assert project["requires-python"] == f">={oldest[0]}.{oldest[1]},<{above}"
    spoken = f"Python {oldest[0]}.{oldest[1]} to {newest[0]}.{newest[1]}"
    makefile = (ROOT / "Makefile").read_text()
    assert spoken in makefile
    assert spoken in (ROOT / "README.md").read_text()
    assert f"{oldest} <= sys.version_info[:2] <= {newest}" in makefile
    for minor in range(oldest[1], newest[1] + 1):
        assert f"python{oldest[0]}.{minor} " in makefile
    assert f"python{above}" not in makefile


def test_a_python_outside_the_range_is_a_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(bootstrap.sys, "version_info", (3, 15, 0))
    with pytest.raises(SystemExit, match=r"the libraries need 3\.11 to 3\.14\. Name another"):
        bootstrap.check_machine(tmp_path)

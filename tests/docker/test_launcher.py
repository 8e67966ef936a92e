"""docker/run: which way in it takes, what it hands to a container engine, and its exit codes.

Everything around the launcher is faked, so that these tests need neither an engine nor DOLFINx: PATH holds
the usual tools and, as small shell scripts, what a test wants to exist.
"""

import os
import shutil
import signal
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
TOOLS = [
    "awk",
    "cat",
    "cut",
    "date",
    "dirname",
    "env",
    "flock",
    "grep",
    "head",
    "id",
    "ls",
    "mkdir",
    "mv",
    "readlink",
    "rm",
    "sed",
    "sh",
    "sha256sum",
    "sleep",
    "tail",
    "tr",
    "true",
]

# Remembers the tags it built in $STATE/images and its arguments, one a line, in $STATE/build, run and rmi.
ENGINE = """
case $1 in
info) exit ${FAKE_INFO:-0} ;;
--version) echo "NAME version 99" ;;
image) grep -qx "$3" "$STATE/images" 2>/dev/null ;;
build)
    printf '%s\\n' "$@" >"$STATE/build"
    [ -z "${FAKE_BUILD_FAILS-}" ] || { echo "E: the reason in the log"; exit 1; }
    while [ "$1" != --tag ]; do shift; done
    echo "$2" >>"$STATE/images" ;;
run)
    case " $* " in *" true ") exit ${FAKE_START:-0} ;; esac
    printf '%s\\n' "$@" >"$STATE/run"
    exit ${FAKE_RUN:-0} ;;
rmi) echo "$2" >>"$STATE/rmi" ;;
esac
"""


class Machine:
    """A copy of the launcher on a machine where only the usual tools exist."""

    def __init__(self, directory: Path) -> None:
        self.checkout = directory / "work" / "check out"
        self.bin = directory / "bin"
        self.state = directory / "state"
        self.cache = directory / "cache"
        for path in (self.checkout / "docker", self.bin, self.state):
            path.mkdir(parents=True)
        shutil.copytree(CHECKOUT / "docker", self.checkout / "docker", dirs_exist_ok=True)
        for name in (".dockerignore", "pyproject.toml"):
            shutil.copy(CHECKOUT / name, self.checkout)
        for name in TOOLS:
            found = shutil.which(name)
            if found:
                (self.bin / name).symlink_to(found)
        self.env = {
            "PATH": str(self.bin),
            "HOME": str(directory),
            "FETOPO_CACHE": str(self.cache),
            "STATE": str(self.state),
        }

    def add(self, name: str, script: str) -> None:
        path = self.bin / name
        path.unlink(missing_ok=True)
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    def add_engine(self, name: str, uid: int = 1000) -> None:
        self.add(name, ENGINE.replace("NAME", name))
        self.add("id", f"echo {uid}")

    def run(self, *command: str, cwd: Path | None = None, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(self.checkout / "docker" / "run"), *command],
            cwd=cwd or self.checkout,
            env=self.env | env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
        )

    def recorded(self, name: str) -> list[str]:
        path = self.state / name
        return path.read_text().splitlines() if path.exists() else []


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def after(option: str, arguments: list[str]) -> list[str]:
    """What follows each occurrence of `option`."""
    return [value for name, value in pairwise(arguments) if name == option]


# --- usage ------------------------------------------------------------------------------------------------


def test_usage(machine: Machine) -> None:
    nothing = machine.run()
    assert nothing.returncode == 2
    assert nothing.stdout == ""
    assert "usage: docker/run COMMAND" in nothing.stderr
    asked = machine.run("--help")
    assert asked.returncode == 0
    assert "usage: docker/run COMMAND" in asked.stdout
    unknown = machine.run("--frobnicate")
    assert unknown.returncode == 2
    assert "--frobnicate" in unknown.stderr


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("FETOPO_ENGINE", "rocket"),
        ("FETOPO_DEBIAN", "../etc"),
        ("FETOPO_MOUNT", "relative"),
        ("FETOPO_MOUNT", "/none"),
    ],
)
def test_wrong_variable_is_named(machine: Machine, name: str, value: str) -> None:
    machine.add_engine("docker")
    result = machine.run("prog", **{name: value})
    assert result.returncode == 2
    assert name in result.stderr
    assert value in result.stderr
    assert machine.recorded("run") == []


# --- 1. the current python3 -------------------------------------------------------------------------------


def test_python_with_dolfinx_runs_the_command_directly(machine: Machine, tmp_path: Path) -> None:
    machine.add("python3", "exit 0")
    machine.add_engine("docker")
    elsewhere = tmp_path / "else where"
    elsewhere.mkdir()
    result = machine.run(
        "sh",
        "-c",
        'pwd; echo "$PYTHONPATH"; echo "$1"; exit 7',
        "sh",
        "a  b",
        cwd=elsewhere,
        PYTHONPATH="/mine",
    )
    assert result.returncode == 7
    assert result.stdout.splitlines() == [str(elsewhere), f"{machine.checkout}:/mine", "a  b"]
    assert result.stderr == ""
    assert machine.recorded("build") == []
    assert not machine.cache.exists()


def test_python_with_dolfinx_and_no_such_command(machine: Machine) -> None:
    machine.add("python3", "exit 0")
    result = machine.run("frobnicate")
    assert result.returncode == 127
    assert "frobnicate: command not found" in result.stderr


def test_unsupported_dolfinx_is_said_and_passed_over(machine: Machine) -> None:
    machine.add("python3", "echo 'DOLFINx is here, but not usable: found 0.5.0' >&2; exit 1")
    machine.add_engine("docker")
    result = machine.run("prog")
    assert "found 0.5.0" in result.stderr
    assert machine.recorded("run") != []


def test_absent_dolfinx_is_not_mentioned(machine: Machine) -> None:
    machine.add("python3", "echo 'no DOLFINx' >&2; exit 1")
    machine.add_engine("docker")
    assert machine.run("prog").returncode == 0
    result = machine.run("prog")
    assert result.stderr == ""
    assert machine.recorded("run") != []


# --- 2. a container engine --------------------------------------------------------------------------------


def test_docker_shows_the_checkout_and_keeps_the_owner(machine: Machine, tmp_path: Path) -> None:
    machine.add_engine("docker")
    here, more, shared = tmp_path / "here", tmp_path / "more", machine.checkout.parent / "shared"
    for path in (here, more, shared):
        path.mkdir()
    result = machine.run("prog", "a  b", "", cwd=here, FETOPO_MOUNT=str(more), PETSC_OPTIONS="-x", SECRET="y")
    assert result.returncode == 0, result.stderr
    arguments = machine.recorded("run")
    bind = "type=bind,source={0},target={0}".format
    mounts = after("--mount", arguments)
    assert {bind(here), bind(machine.checkout), bind(more), bind(shared) + ",readonly"} <= set(mounts)
    assert len(mounts) == len(set(mounts))
    assert after("--workdir", arguments) == [str(here)]
    assert after("--user", arguments) == ["1000:1000"]
    assert {"PETSC_OPTIONS", "FETOPO_MOUNT", f"PYTHONPATH={machine.checkout}"} <= set(
        after("--env", arguments)
    )
    assert "SECRET" not in arguments
    assert "--tty" not in arguments
    assert arguments[-3:] == ["prog", "a  b", ""]
    home = machine.cache / "home-trixie"
    assert bind(home) in mounts
    assert f"HOME={home}" in after("--env", arguments)


def test_image_is_built_once_and_again_when_the_dockerfile_changed(machine: Machine) -> None:
    machine.add_engine("docker")
    first = machine.run("prog")
    assert "the environment is ready" in first.stderr
    [old] = machine.recorded("images")
    assert after("--tag", machine.recorded("build")) == [old]
    assert after("--build-arg", machine.recorded("build"))[0] == "DEBIAN=trixie"
    assert old in machine.recorded("run")

    assert machine.run("prog").stderr == ""
    assert machine.recorded("images") == [old]

    source = machine.checkout / "fetopo"
    source.mkdir()
    (source / "new.py").write_text("")
    with (machine.checkout / "pyproject.toml").open("a") as settings:
        settings.write("\n[tool.other]\nname = 1\n")
    machine.run("prog")
    assert machine.recorded("images") == [old]

    with (machine.checkout / "docker" / "Dockerfile").open("a") as dockerfile:
        dockerfile.write("RUN true\n")
    machine.run("prog")
    built = machine.recorded("images")
    assert len(built) == 2
    assert built[1] in machine.recorded("run")
    assert machine.recorded("rmi") == [old]


def test_other_suite_is_another_image_beside_the_first(machine: Machine) -> None:
    machine.add_engine("docker")
    machine.run("prog")
    machine.run("prog", FETOPO_DEBIAN="sid")
    assert "DEBIAN=sid" in after("--build-arg", machine.recorded("build"))
    assert [tag.split("-")[0] for tag in machine.recorded("images")] == ["fetopo:trixie", "fetopo:sid"]
    assert machine.recorded("rmi") == []


def test_failed_build_tells_the_reason_and_is_tried_again(machine: Machine) -> None:
    machine.add_engine("docker")
    result = machine.run("prog", FAKE_BUILD_FAILS="1")
    assert result.returncode == 125
    assert "the reason in the log" in result.stderr
    log = machine.cache / "log" / "setup-trixie.log"
    assert str(log) in result.stderr
    assert "the reason in the log" in log.read_text()
    assert machine.recorded("run") == []
    assert machine.run("prog").returncode == 0
    assert machine.recorded("run") != []


def test_exit_code_of_the_container_is_passed_on(machine: Machine) -> None:
    machine.add_engine("docker")
    machine.run("prog")
    assert machine.run("prog", FAKE_RUN="42").returncode == 42


def test_podman_maps_the_caller_to_itself(machine: Machine) -> None:
    machine.add_engine("podman")
    machine.run("prog")
    arguments = machine.recorded("run")
    assert after("--userns", arguments) == ["keep-id"]
    assert after("--user", arguments) == ["1000:1000"]


def test_root_needs_no_mapping(machine: Machine) -> None:
    machine.add_engine("podman", uid=0)
    machine.run("prog")
    assert after("--user", machine.recorded("run")) == ["0:0"]
    assert "--userns" not in machine.recorded("run")


def test_engine_that_cannot_start_containers_is_refused(machine: Machine) -> None:
    machine.add_engine("podman")
    result = machine.run("prog", FAKE_START="126")
    assert result.returncode == 125
    assert "cannot start a container" in result.stderr


# --- 4. nothing -------------------------------------------------------------------------------------------


def test_nothing_there_says_what_to_install(machine: Machine) -> None:
    machine.add("id", "echo 1000")
    result = machine.run("pytest")
    assert result.returncode == 125
    for word in ("environment.yml", "podman", "docker info", "root", str(machine.checkout)):
        assert word in result.stderr
    assert not machine.cache.exists()


def test_client_without_daemon_does_not_count(machine: Machine) -> None:
    machine.add_engine("docker")
    result = machine.run("prog", FAKE_INFO="1")
    assert result.returncode == 125
    assert machine.recorded("build") == []


# --- process 1 --------------------------------------------------------------------------------------------


def start_init(*command: str, signals: str = "TERM") -> subprocess.Popen[str]:
    return subprocess.Popen(
        ["sh", str(CHECKOUT / "docker/launcher/init"), signals, "/", *command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_init_passes_input_output_and_exit_code() -> None:
    process = start_init("sh", "-c", "cat; pwd; exit 9")
    out, _ = process.communicate("in", timeout=20)
    assert (out, process.returncode) == ("in/\n", 9)


def test_init_names_a_missing_command() -> None:
    process = start_init("frobnicate")
    _, err = process.communicate(timeout=20)
    assert process.returncode == 127
    assert "frobnicate: command not found" in err


@pytest.mark.parametrize("name", ["TERM", "INT"])
def test_init_hands_signals_on_and_waits(name: str) -> None:
    # The command outlives the signal for a moment: the exit code must be the one it ends with.
    process = start_init(
        "sh",
        "-c",
        f"trap 'sleep 0.2; exit 5' {name}; echo up; while :; do sleep 0.05; done",
        signals="TERM INT",
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    process.send_signal(getattr(signal, f"SIG{name}"))
    process.communicate(timeout=20)
    assert process.returncode == 5


def test_init_leaves_the_interrupt_of_a_terminal_to_the_command() -> None:
    # A terminal signals the whole process group; handing it on would be the second one.
    counter = """
import os, signal, time
reader, writer = os.pipe()
os.set_blocking(writer, False)
signal.set_wakeup_fd(writer)
signal.signal(signal.SIGINT, lambda *_: None)
print("up", flush=True)
end = time.monotonic() + 0.5
while time.monotonic() < end:
    time.sleep(0.05)
print(len(os.read(reader, 99)))
"""
    process = subprocess.Popen(
        ["sh", str(CHECKOUT / "docker/launcher/init"), "TERM", "/", sys.executable, "-c", counter],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    os.killpg(process.pid, signal.SIGINT)
    assert process.communicate(timeout=20)[0] == "1\n"
    assert process.returncode == 0


# --- files ------------------------------------------------------------------------------------------------


def project_files() -> list[Path]:
    command = ["git", "-C", str(CHECKOUT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError) as problem:
        pytest.skip(f"git cannot list the project's files: {problem}")
    return [path for name in listed.split("\0") if name and (path := CHECKOUT / name).is_file()]


def test_no_file_names_a_registry() -> None:
    # Where packages come from is the machine's matter: mirrors and proxies must keep working.
    hosts = [
        ".".join(parts)
        for parts in [
            ("debian", "org"),
            ("ubuntu", "com"),
            ("pypi", "org"),
            ("pythonhosted", "org"),
            ("anaconda", "org"),
            ("docker", "io"),
            ("docker", "com"),
            ("ghcr", "io"),
            ("quay", "io"),
            ("npmjs", "org"),
        ]
    ]
    found = []
    for path in project_files():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        found += [f"{path.relative_to(CHECKOUT)}: {host}" for host in hosts if host in text]
    assert found == []


def test_image_starts_from_a_base_that_can_be_made_here() -> None:
    lines = (CHECKOUT / "docker/Dockerfile").read_text().splitlines()
    assert [line for line in lines if line.startswith("FROM")] == ["FROM debian:${DEBIAN}-slim"]
    assert "ARG DEBIAN=trixie" in lines

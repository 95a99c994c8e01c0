"""A real Slurm with a real SkyPilot API server on this machine, through the script that `SLURM_LOOPBACK` names."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[3]
SCRIPT = Path(os.environ.get("SLURM_LOOPBACK") or ROOT.parent / "shared" / "slurm-loopback" / "slurm-loopback")
#: A cluster that runs already, for work on these tests: it is used and left as it is.
REUSED = os.environ.get("AINFINITY_LOOPBACK_DIR", "")
#: Far more than anything takes, for a machine that is busy with other things.
PATIENCE = 600.0
#: The job's user in the cluster; it exists there only.
USER = 61234
#: The interpreter that has everything, as every machine of the cluster sees it.
VENV_PYTHON = str(Path(sys.executable).absolute())


def wait_for(condition: Callable[[], Any], what: str = "", pause: float = 0.2, patience: float = PATIENCE) -> Any:
    """Return the first true answer of `condition`."""
    give_up = time.monotonic() + patience
    while not (found := condition()):
        assert time.monotonic() < give_up, f"waited {patience:.0f} s in vain for {what or condition}"
        time.sleep(pause)
    return found


def reason_to_skip() -> str:
    """Why these tests cannot run here; "" if they can."""
    if not SCRIPT.is_file():
        return f"REAL SLURM NOT TESTED: there is no script {SCRIPT}; set SLURM_LOOPBACK to slurm-loopback"
    if os.getuid() != 0:
        return "REAL SLURM NOT TESTED: slurm-loopback makes machines out of namespaces, which takes root"
    if not REUSED and shutil.which("apt-get") is None:
        return "REAL SLURM NOT TESTED: slurm-loopback installs Slurm with apt-get, and this is no Debian"
    return ""


def reason_to_fail() -> str:
    """What a person has to put right before a cluster can be started; "" if nothing."""
    if REUSED:
        return ""
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", 50011)) == 0:
            return (
                "another SkyPilot API server runs on this machine, and there can be one (port 50011): stop it, or set "
                "AINFINITY_LOOPBACK_DIR to the folder of the loopback cluster that it belongs to"
            )
    return ""


def interpreter_prefix() -> Path:
    """The installation that the project's interpreter links to."""
    return Path(sys.executable).resolve().parents[1]


@dataclass(frozen=True, slots=True)
class SlurmJob:
    """A line of squeue."""

    id: int
    name: str
    state: str
    nodes: str


class Loopback:
    """The cluster. `folder` is seen by every machine of it at the same path, and by us."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._env: dict[str, str] = {}

    def call(self, *words: str, env: dict[str, str] | None = None) -> str:
        """Call the script and return what it wrote."""
        log = self.folder.with_name(self.folder.name + ".out")
        with log.open("ab") as errors:  # its servers inherit the file: a pipe would never end
            done = subprocess.run(
                [str(SCRIPT), str(self.folder), *words],
                env=env or os.environ,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                timeout=PATIENCE,
            )
        assert done.returncode == 0, f"slurm-loopback {' '.join(words)} failed: {log.read_text()[-3000:]}"
        return done.stdout

    def start(self) -> None:
        """Start it, with the project's environment on every machine."""
        paths = [Path(sys.executable).absolute().parents[1], interpreter_prefix()]
        settings = {
            "SKY_VENV": str(paths[0]),
            "HOST_PATHS": " ".join(str(path) for path in dict.fromkeys(paths) if not str(path).startswith("/usr")),
        }
        kept = {name: value for name, value in os.environ.items() if not name.startswith("AINFINITY_")}
        # apt-get checks signatures as a user of its own, who cannot do so where /tmp is closed to others.
        apt = self.folder.with_name(self.folder.name + ".apt")
        apt.write_text('APT::Sandbox::User "root";\n')
        try:
            self.call("start", env=kept | settings | {"APT_CONFIG": str(apt)})
        finally:
            apt.unlink()

    def wipe(self) -> None:
        """End it and remove its folder."""
        self.call("wipe")
        self.folder.with_name(self.folder.name + ".out").unlink(missing_ok=True)

    @property
    def env(self) -> dict[str, str]:
        """The environment in which `sky` and ainfinity use it."""
        if not self._env:
            text = self.call("env")
            lines = f"{text}\nexec {sys.executable} -c 'import json, os; print(json.dumps(dict(os.environ)))'"
            done = subprocess.run(["bash", "-c", lines], capture_output=True, text=True, check=True)
            found: dict[str, str] = json.loads(done.stdout)
            dropped = ("AINFINITY_", "MAKE", "MFLAGS", "PYTEST_")
            self._env = {name: value for name, value in found.items() if not name.startswith(dropped)}
            self._env.pop("PYTHONDONTWRITEBYTECODE", None)  # it doubles the time that `import sky` takes
        return dict(self._env)

    @property
    def url(self) -> str:
        """Where its API server listens."""
        return f"http://127.0.0.1:{self.env['SKYPILOT_API_SERVER_LOCAL_PORT']}"

    def is_healthy(self) -> bool:
        """Whether the API server answers."""
        try:
            with urllib.request.urlopen(f"{self.url}/api/health", timeout=2) as answer:
                return b"healthy" in answer.read()
        except OSError:
            return False

    def share(self, name: str) -> Path:
        """Make a folder that the jobs' user may write to and that lies at the same path everywhere."""
        folder = self.folder / "home" / "shared" / name
        folder.mkdir(parents=True)
        for path in (folder.parent, folder):
            os.chown(path, USER, USER)
            path.chmod(0o755)
        return folder

    def exec(self, *words: str) -> str:
        """Run a command on the login node as the jobs' user."""
        return self.call("exec", *words)

    def squeue(self, name: str = "") -> list[SlurmJob]:
        """What Slurm has queued or running; with `name`, only what has that in its name."""
        lines = self.exec("squeue", "--noheader", "--format=%i|%j|%T|%N").splitlines()
        jobs = [SlurmJob(int(one[0]), *one[1:]) for one in (line.split("|") for line in lines)]
        return [job for job in jobs if name in job.name]

    def ever(self, name: str) -> list[int]:
        """The ids of all Slurm jobs, running or over, that ever had `name` in their name."""
        log = self.folder / "log" / "jobcomp.txt"
        lines = log.read_text().splitlines() if log.exists() else []
        fields = [dict(word.split("=", 1) for word in line.split() if "=" in word) for line in lines]
        over = {int(one["JobId"]) for one in fields if name in one.get("Name", "")}
        return sorted(over | {job.id for job in self.squeue(name)})

    def sky(self, *words: str, check: bool = True) -> str:
        """Run SkyPilot's own command line."""
        done = subprocess.run(
            [str(Path(sys.executable).with_name("sky")), *words],
            env=self.env,
            cwd=self.env["HOME"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        assert not check or done.returncode == 0, f"sky {' '.join(words)}: {done.stdout[-2000:]} {done.stderr[-2000:]}"
        return done.stdout

    def ask(self, expression: str) -> Any:
        """Evaluate an expression over `sky` in a process of its own; its value must be JSON."""
        done = subprocess.run(
            [sys.executable, "-c", f"import json, sky; print('\\x00' + json.dumps({expression}))"],
            env=self.env,
            cwd=self.env["HOME"],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return json.loads(done.stdout.rpartition("\x00")[2])

    def clusters(self, name: str = "") -> list[str]:
        """The names of SkyPilot's clusters; with `name`, of those that have it in theirs."""
        found = self.ask("[row['name'] for row in sky.get(sky.status(all_users=True))]")
        return [one for one in found if name in one]

    def live_managed(self, name: str = "") -> list[str]:
        """The names of managed jobs that are not over."""
        expression = "[[r.get('job_name'), str(r.get('status'))] for r in sky.get(sky.jobs.queue(False))]"
        over = ("SUCCEEDED", "FAILED", "CANCELLED")
        return [job for job, status in self.ask(expression) if name in job and not any(word in status for word in over)]

    @contextmanager
    def killed_api(self) -> Iterator[None]:
        """The API server killed with -9, with all that belongs to it, until the block ends."""
        self.call("api-kill")
        try:
            yield
        finally:
            self.call("api-start")

    @contextmanager
    def killed_node(self, number: int) -> Iterator[None]:
        """A node that lost its power, until the block ends."""
        self.call("node-kill", str(number))
        try:
            yield
        finally:
            self.call("node-start", str(number))
            with suppress(AssertionError):  # it may come back by itself first, and then there is nothing to resume
                self.exec("scontrol", "update", f"NodeName=sim{number}", "State=RESUME")
            wait_for(lambda: not self._is_down(number), f"node sim{number}")

    def _is_down(self, number: int) -> bool:
        return "down" in self.exec("sinfo", "--noheader", "--nodes", f"sim{number}", "--format=%t")


@contextmanager
def running_loopback() -> Iterator[Loopback]:
    """The cluster for a session of tests; what was started here is ended here, whatever happens."""
    if REUSED:
        yield Loopback(Path(REUSED))
        return
    loopback = Loopback(Path(tempfile.mkdtemp(prefix="slb-", dir="/tmp")))  # a socket's path must be short
    try:
        loopback.start()
        yield loopback
    finally:
        loopback.wipe()

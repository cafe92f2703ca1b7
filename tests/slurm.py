"""A Slurm of this machine, for a test: munge, a controller and two nodes, all on 127.0.0.1, as Debian packages them."""

import contextlib
import os
import secrets
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.helpers import wait_until

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scancel", "scontrol")
PATH = f"{Path(sys.executable).parent}:{os.environ['PATH']}:/usr/sbin"
N_NODES = 2

CONF = """
ClusterName=test
SlurmctldHost=localhost(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthInfo=socket={folder}/munge.socket,cred_expire=5
SlurmctldPort={port}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
ReturnToService=2
KillWait=5
MailProg=/bin/true
{nodes}
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""
"""A job that is requeued may start again once its credential has expired: after seconds here, not two minutes."""


def lacking() -> str:
    """What this machine lacks for a Slurm; empty where nothing is lacking."""
    if os.geteuid() != 0:
        return "Slurm's daemons are started as root, and this is not root"
    absent = [name for name in PROGRAMS if shutil.which(name, path=PATH) is None]
    return f"no {', '.join(absent)}: apt-get install slurmctld slurmd slurm-client munge" if absent else ""


class Slurm:
    """A Slurm that is at work; its commands find it by their environment."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {**os.environ, "PATH": PATH, "SLURM_CONF": str(folder / "slurm.conf")}

    def call(self, *command: str | Path, cwd: Path | None = None) -> str:
        """What a command prints."""
        done = subprocess.run(
            list(map(str, command)), env=self.environment, cwd=cwd, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, f"{command}: {done.stderr}"
        return done.stdout.strip()

    def jobs(self, *states: str) -> list[str]:
        """Ids of the jobs that are not over, or are in one of some states."""
        asked = [f"--states={','.join(states)}"] if states else []
        return self.call("squeue", "--noheader", "--format=%A", *asked).split()

    def shown(self, job: str) -> dict[str, str]:
        """What the controller knows of a job."""
        text = self.call("scontrol", "show", "job", job, "--oneliner")
        return dict(part.split("=", 1) for part in text.split() if "=" in part)


@contextlib.contextmanager
def slurm(folder: Path) -> Iterator[Slurm]:
    """Start a Slurm in a folder, and end it with the block: its jobs, then its daemons."""
    names = [f"node{i}" for i in range(N_NODES)]
    port, *ports = _free_ports(1 + N_NODES)
    nodes = [
        f"NodeName={name} NodeHostname=localhost NodeAddr=127.0.0.1 Port={its} CPUs=2 RealMemory=4000 State=UNKNOWN"
        for name, its in zip(names, ports, strict=True)
    ]
    (folder / "slurm.conf").write_text(CONF.format(folder=folder, port=port, nodes="\n".join(nodes)))
    (folder / "munge.key").touch(0o600)
    (folder / "munge.key").write_bytes(secrets.token_bytes(128))
    for name in ("state", *(f"spool-{name}" for name in names)):
        (folder / name).mkdir()
    made = Slurm(folder)
    with contextlib.ExitStack() as daemons:
        log = daemons.enter_context(open(folder / "daemons.out", "w"))

        def start(*command: str) -> None:
            process = subprocess.Popen(command, stdout=log, stderr=log, env=made.environment, start_new_session=True)
            daemons.callback(_end, process)

        kinds = ("socket", "key-file", "pid-file", "log-file", "seed-file")
        files = [f"--{kind}={folder}/munge.{kind.removesuffix('-file')}" for kind in kinds]
        start("munged", "--foreground", "--force", *files)
        wait_until((folder / "munge.socket").exists, "munge's socket")
        start("slurmctld", "-D", "-i")
        for name in names:
            start("slurmd", "-D", "-N", name)
        wait_until(lambda: _idle(made) == N_NODES, "idle nodes")
        daemons.callback(_end_jobs, made)
        yield made


def _idle(made: Slurm) -> int:
    with contextlib.suppress(AssertionError):  # the controller does not answer yet
        return made.call("sinfo", "--noheader", "--Node", "--states=idle", "--format=%N").count("node")
    return 0


def _end_jobs(made: Slurm) -> None:
    for job in made.jobs():
        made.call("scancel", "--full", job)
    wait_until(lambda: not made.jobs(), "the end of all jobs")


def _end(process: subprocess.Popen) -> None:
    process.terminate()
    try:
        process.wait(15)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _free_ports(n: int) -> list[int]:
    with contextlib.ExitStack() as opened:
        return [opened.enter_context(socket.create_server(("127.0.0.1", 0))).getsockname()[1] for _ in range(n)]

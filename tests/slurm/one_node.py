"""A real SLURM of one node, started for the tests and stopped after them."""

import os
import random
import shutil
import socket
import subprocess
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scontrol", "scancel")

CONFIG = """
ClusterName=riskft
FirstJobId={first_job}
SlurmctldHost={host}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
JobRequeue=1
KillWait=5
SlurmdParameters=config_overrides
SchedulerParameters=sched_interval=2,bf_interval=2
NodeName={host} CPUs=8 State=UNKNOWN
PartitionName=test Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def _free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def _wait_for(answers, what, seconds=30):
    end = time.monotonic() + seconds
    while not answers():
        assert time.monotonic() < end, f"no {what} after {seconds} s"
        time.sleep(0.2)


@contextmanager
def one_node_slurm():
    """Starts munged, slurmctld and slurmd; sets SLURM_CONF; yields their folder."""
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    if missing := [name for name in PROGRAMS if shutil.which(name, path=path) is None]:
        pytest.skip(f"no SLURM here: {', '.join(missing)} not found (Debian: apt-get install slurm-wlm munge)")
    if os.getuid() != 0:
        pytest.skip("a SLURM of one's own needs root")
    # short: the path of a socket has at most 107 characters
    folder = Path(tempfile.mkdtemp(prefix="slurm-"))
    folder.chmod(0o755)
    # Lightning makes a job's port of its number, and another SLURM of these tests may run beside this one
    first_job = random.randrange(1, 9000)
    host = socket.gethostname().partition(".")[0]
    (folder / "slurm.conf").write_text(
        CONFIG.format(host=host, folder=folder, ports=_free_ports(2), first_job=first_job)
    )
    (folder / "munge.key").write_bytes(os.urandom(1024))
    (folder / "munge.key").chmod(0o400)
    for name in ("state", "spool"):
        (folder / name).mkdir()
    environment = {**os.environ, "PATH": path, "SLURM_CONF": str(folder / "slurm.conf")}
    munged = [f"--{key}={folder}/munge.{key.removesuffix('-file')}" for key in ("socket", "key-file", "pid-file")]
    munged += [f"--{key}={folder}/munge.{key.removesuffix('-file')}" for key in ("log-file", "seed-file")]
    daemons = []

    def start(*command):
        log = (folder / f"{command[0]}.out").open("w")
        daemons.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log))

    def answers():
        done = subprocess.run(["sinfo", "-h", "-o", "%T"], env=environment, capture_output=True, text=True, check=False)
        return done.stdout.strip() in ("idle", "mixed")

    with pytest.MonkeyPatch.context() as patch:
        try:
            start("munged", "--foreground", "--force", *munged)
            _wait_for((folder / "munge.socket").exists, "munge socket")
            start("slurmctld", "-D")
            start("slurmd", "-D")
            _wait_for(answers, "idle node")
            patch.setenv("SLURM_CONF", environment["SLURM_CONF"])
            yield folder
            subprocess.run(["scancel", "--user=root"], env=environment, check=False)
        finally:
            for daemon in reversed(daemons):
                daemon.terminate()
            for daemon in reversed(daemons):
                try:
                    daemon.wait(15)
                except subprocess.TimeoutExpired:
                    daemon.kill()
    shutil.rmtree(folder, ignore_errors=True)

"""The files of docs/cluster: what each process would get, and that the page shows them as they are."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from alexnet.cli.parser import build_parser
from alexnet.launching import process_environment

pytestmark = pytest.mark.once
ROOT = Path(__file__).resolve().parents[1]
CLUSTER = ROOT / "docs" / "cluster"
FIRST = "alexnet-workers-0-0.alexnet"
# Slurm on two hosts with four tasks each: two of the eight are enough.
SRUN = """#!/bin/bash
while [ "${1#--}" != "$1" ]; do shift; done
for rank in 0 5; do SLURM_PROCID=$rank SLURM_LOCALID=$((rank % 4)) "$@" || exit; done
"""
PYTHON = f"""#!{sys.executable} -S
import json, os, sys
print(json.dumps([dict(os.environ), sys.argv[1:]]))
"""


def arguments_of(command):
    """What the package is given, after `-m alexnet`; unknown flags are an error."""
    given = command[command.index("alexnet") + 1 :]
    options, unknown = build_parser().parse_known_args(given)
    assert not unknown and options.distribute == "data"
    assert options.data_dir.startswith("/shared/") and options.run_dir.startswith("/shared/")
    return options


@pytest.mark.parametrize("path", sorted(CLUSTER.iterdir()), ids=lambda path: path.name)
def test_the_page_shows_the_file(path):
    page = (ROOT / "docs" / "devices.md").read_text(encoding="utf-8")
    language = {".sh": "bash", ".yaml": "yaml"}[path.suffix]
    assert f"[{path.name}](cluster/{path.name}):\n\n```{language}\n{path.read_text(encoding='utf-8')}```\n" in page


@pytest.mark.parametrize("path", sorted(CLUSTER.glob("*.sh")), ids=lambda path: path.name)
def test_bash_reads_the_file(path):
    subprocess.run(["bash", "-n", path], check=True, timeout=10)


@pytest.mark.parametrize("backend", ["torch", "jax"])
def test_environment_under_slurm(backend, tmp_path):
    for name, text in (("srun", SRUN), ("python", PYTHON), ("scontrol", "#!/bin/bash\nprintf 'node1\\nnode2\\n'\n")):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    slurm = {"JOB_NODELIST": "node[1-2]", "JOB_ID": "123456", "NTASKS": "8", "NTASKS_PER_NODE": "4"}
    environment = {f"SLURM_{name}": value for name, value in {**slurm, "CPUS_PER_TASK": "8"}.items()}
    path = CLUSTER / f"slurm_{backend}.sh"
    output = subprocess.check_output(
        ["bash", path], env={**environment, "PATH": f"{tmp_path}:{os.environ['PATH']}"}, text=True, timeout=20
    )
    tasks = [json.loads(line) for line in output.splitlines()]
    assert len(tasks) == 2
    for rank, (found, command) in zip((0, 5), tasks, strict=True):
        assert arguments_of(command).backend == backend
        local = str(rank % 4)
        if backend == "torch":
            expected = {"MASTER_ADDR": "node1", "MASTER_PORT": "23456", "RANK": str(rank), "LOCAL_RANK": local}
            expected |= {"WORLD_SIZE": "8", "LOCAL_WORLD_SIZE": "4", "OMP_NUM_THREADS": "8"}
        else:
            expected = {"KERAS_DISTRIBUTION_JOB_ADDRESSES": "node1:23456", "KERAS_DISTRIBUTION_NUM_PROCESSES": "8"}
            expected |= {"KERAS_DISTRIBUTION_PROCESS_ID": str(rank), "JAX_LOCAL_DEVICE_IDS": local}
        assert {name: found.get(name) for name in expected} == expected
        known = set(process_environment(backend, 1, 2, 1)) - {"KERAS_BACKEND", "JAX_COORDINATOR_BIND_ADDRESS"}
        assert known - {"OMP_NUM_THREADS", "NPROC"} <= set(found)
    options = dict(re.findall(r"^#SBATCH --([\w-]+)=(\S+)$", path.read_text(), re.MULTILINE))
    assert options["ntasks-per-node"] == options["gpus-per-node"] == "4" and "gpus-per-task" not in options


@pytest.mark.parametrize("backend", ["torch", "jax"])
def test_jobset(backend):
    jobset = yaml.safe_load((CLUSTER / f"jobset_{backend}.yaml").read_text(encoding="utf-8"))
    assert (jobset["apiVersion"], jobset["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
    assert set(jobset["spec"]) == {"network", "failurePolicy", "replicatedJobs"}
    (workers,) = jobset["spec"]["replicatedJobs"]
    assert f"{jobset['metadata']['name']}-{workers['name']}-0-0.{jobset['metadata']['name']}" == FIRST
    job = workers["template"]["spec"]
    assert job["completionMode"] == "Indexed" and job["parallelism"] == job["completions"]
    pod = job["template"]["spec"]
    assert pod["restartPolicy"] == "Never"
    (container,) = pod["containers"]
    assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}
    assert all(isinstance(word, str) for word in container["command"])
    assert arguments_of(container["command"]).backend == backend
    values = {each["name"]: each.get("value") for each in container["env"]}
    assert all(isinstance(value, str | None) for value in values.values())
    index = {"fieldRef": {"fieldPath": "metadata.annotations['batch.kubernetes.io/job-completion-index']"}}
    (indexed,) = [each["name"] for each in container["env"] if each.get("valueFrom") == index]
    gpus = container["resources"]["limits"]["nvidia.com/gpu"]
    if backend == "torch":
        command = " ".join(container["command"])
        assert f"--node-rank=$({indexed})" in command and f"--master-addr={FIRST}" in command
        assert f"--nnodes={job['completions']} --nproc-per-node={gpus} " in command
    else:
        assert indexed == "KERAS_DISTRIBUTION_PROCESS_ID" and gpus == 1
        assert values["KERAS_DISTRIBUTION_JOB_ADDRESSES"] == f"{FIRST}:29500"
        assert values["KERAS_DISTRIBUTION_NUM_PROCESSES"] == str(job["completions"])
        assert values["JAX_LOCAL_DEVICE_IDS"] == "0"

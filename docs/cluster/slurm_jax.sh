#!/bin/bash
# JAX on 2 hosts with 4 GPUs each: sbatch docs/cluster/slurm_jax.sh
#SBATCH --job-name=alexnet
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=4
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@120
#SBATCH --output=alexnet-%j.log

set -euo pipefail
MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | sed -n 1p)
MASTER_PORT=$((20000 + SLURM_JOB_ID % 10000))
export MASTER_ADDR MASTER_PORT PYTHONUNBUFFERED=1

# Each task expands its own variables.
# shellcheck disable=SC2016
srun --label --kill-on-bad-exit=1 --cpus-per-task="$SLURM_CPUS_PER_TASK" bash -c '
    export KERAS_DISTRIBUTION_JOB_ADDRESSES="$MASTER_ADDR:$MASTER_PORT"
    export KERAS_DISTRIBUTION_NUM_PROCESSES="$SLURM_NTASKS" KERAS_DISTRIBUTION_PROCESS_ID="$SLURM_PROCID"
    export JAX_LOCAL_DEVICE_IDS="$SLURM_LOCALID"
    exec python -m alexnet train --backend jax --distribute data \
        --params params/paper.yaml --data_dir /shared/imagenet256 --run_dir /shared/runs
'

#!/bin/bash
# PyTorch on 2 hosts with 4 GPUs each; on each of them: bash docs/cluster/torchrun.sh FIRST_HOST
set -euo pipefail
exec torchrun --nnodes 2 --nproc-per-node 4 --max-restarts 0 \
    --rdzv-backend c10d --rdzv-endpoint "$1:29500" --rdzv-id alexnet \
    -m alexnet train --backend torch --distribute data \
    --params params/paper.yaml --data_dir /shared/imagenet256 --run_dir /shared/runs

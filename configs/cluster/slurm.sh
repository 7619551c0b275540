#!/bin/bash
# A search on nodes that SLURM gives, from the project's folder on storage that all nodes see:
#
#   sh configs/cluster/setup.sh                                      once, on the login node
#   sbatch --nodes=2 configs/cluster/slurm.sh configs/mini_decathlon.yaml
#   sbatch --nodes=2 configs/cluster/slurm.sh configs/mini_decathlon.yaml --resume
#
# SLURM ends a job at its time limit by SIGTERM: what was scored is in the record, and --resume goes on.
#SBATCH --job-name=apportion
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --exclusive
#SBATCH --time=24:00:00
#SBATCH --output=apportion-%j.log
# GPUs are asked for as your site names them, for example:
##SBATCH --gpus-per-node=4
set -eu

export PATH=$HOME/apportion-env/bin:$PATH RAY_USAGE_STATS_ENABLED=0
# The script runs on the first node, which becomes the head; names may stand for 127.0.1.1 there.
address=$(hostname -I | awk '{print $1}')
[ -n "$address" ] || { echo "the node $(hostname) has no address" >&2; exit 1; }
port=$((20000 + SLURM_JOB_ID % 20000))
# Nobody else may speak to this Ray; an environment on shared storage takes long to load at first.
RAY_AUTH_TOKEN=$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n')
export RAY_AUTH_TOKEN RAY_AUTH_MODE=token RAY_SYMMETRIC_RUN_CLUSTER_WAIT_TIMEOUT=300
# Starts Ray on every node, runs the search on the first, and stops Ray.
exec srun ray symmetric-run --address "$address:$port" --min-nodes "$SLURM_JOB_NUM_NODES" \
    -- apportion search "$@"

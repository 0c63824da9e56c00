#!/bin/bash
# Predicts on SLURM with any number of tasks, which share the cases of one folder; see docs/launch.md.
#
#   sbatch --array=1-16 launch/slurm_predict.sh -i DATASET -o FOLDER
#   sbatch --array=1-16 --gpus=1 launch/slurm_predict.sh --model=RUN -i DATASET -o FOLDER
#
#SBATCH --job-name=liverjax-predict
#SBATCH --array=1-4
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=8
#SBATCH --time=08:00:00
#SBATCH --signal=TERM@60
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%A_%a.log
set -u

# Each task begins with cases of its own, so that no two want the same one from the first.
count=${SLURM_ARRAY_TASK_COUNT:-1}
shard=$((${SLURM_ARRAY_TASK_ID:-0} % count + 1))/$count

srun liverjax predict --share --shard="$shard" "$@"
status=$?

if [ "$status" -eq 143 ]; then # Ended by SIGTERM: the time limit, or a preemption.
    # The number of one task of an array may be that of the whole array.
    job="${SLURM_ARRAY_JOB_ID:+${SLURM_ARRAY_JOB_ID}_${SLURM_ARRAY_TASK_ID}}"
    scontrol requeue "${job:-$SLURM_JOB_ID}"
fi
exit "$status"

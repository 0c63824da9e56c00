#!/bin/bash
# Trains on SLURM, one task per GPU, and resumes after the time limit or a preemption; see docs/launch.md.
#
#   sbatch launch/slurm.sh --config=ct_liver --store=STORE --workdir=RUN
#   sbatch --array=0-4 launch/slurm.sh --config=ct_liver --store=STORE --workdir=RUNS/fold%a --config.split.fold=%a
#
#SBATCH --job-name=liverjax
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=4
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=8
#SBATCH --time=08:00:00
#SBATCH --signal=TERM@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.log
set -u

# If this script gets the signal too, it survives to requeue. Not '', which the tasks would inherit.
trap : TERM

# %a is the number of the array's task, as in SLURM's own file names.
arguments=("${@//%a/${SLURM_ARRAY_TASK_ID-%a}}")

# All tasks of a node see all of its GPUs, and jax takes one by the task's number. srun must not end a task because
# another was first to exit with 75; if one dies, jax ends the others.
srun --gpu-bind=none --kill-on-bad-exit=0 liverjax train "${arguments[@]}"
status=$?

if [ "$status" -eq 75 ]; then # Interrupted, and saved.
    # The number of one task of an array may be that of the whole array.
    job="${SLURM_ARRAY_JOB_ID:+${SLURM_ARRAY_JOB_ID}_${SLURM_ARRAY_TASK_ID}}"
    scontrol requeue "${job:-$SLURM_JOB_ID}"
fi
exit "$status"

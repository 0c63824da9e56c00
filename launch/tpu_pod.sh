#!/bin/bash
# Trains on a Cloud TPU slice, of one host or many, and gets a new one if a spot slice is preempted; see docs/launch.md.
#
#   NAME=liverjax ZONE=us-east5-b TYPE=v5litepod-16 VERSION=v2-alpha-tpuv5-lite SETUP='pip install ...; mount ...' \
#     launch/tpu_pod.sh --config=ct_liver --store=/shared/STORE --workdir=/shared/RUN
#
# SPOT=no requests a slice that is not preempted. The slice is deleted when the training ends, however it ends.
set -u
: "${NAME:?the name of the slice}" "${ZONE:?its zone}" "${TYPE:?its accelerator type}" "${VERSION:?its runtime version}"
: "${SETUP:?what installs liverjax on a host and mounts the folder that all hosts share}"
SPOT=${SPOT:-yes}
POLL=${POLL:-30} # Seconds between two checks of the queue.

queued() { gcloud compute tpus queued-resources "$@" --zone="$ZONE" --quiet; }

state() { queued describe "$NAME" --format="value(state.state)"; }

delete() { queued delete "$NAME" --force; }

on_all_hosts() { gcloud compute tpus tpu-vm ssh "$NAME" --zone="$ZONE" --worker=all --quiet --command="$1"; }

fail() {
    echo "tpu_pod.sh: $1" >&2
    exit 1
}

# Returns when the slice is ready.
create() {
    queued create "$NAME" --node-id="$NAME" --accelerator-type="$TYPE" --runtime-version="$VERSION" \
        $([ "$SPOT" = yes ] && echo --spot) || fail "no request for $NAME could be made"
    trap delete EXIT
    until [ "$(state)" = ACTIVE ]; do
        case $(state) in FAILED | SUSPEND* | '') fail "the request for $NAME failed" ;; esac
        sleep "$POLL"
    done
}

# The arguments, quoted for the shell of the hosts. ssh's own status is not that of what the hosts run, and there is none
# from a slice that is preempted: the hosts print theirs.
printf -v arguments ' %q' "$@"
train="liverjax train$arguments; echo \"liverjax ended with \$?\""

while true; do
    create
    if on_all_hosts "$SETUP"; then
        said=$(on_all_hosts "$train" | tee >(cat >&2) | grep -o 'liverjax ended with [0-9]*' | sort -u)
        [ "$said" = "liverjax ended with 0" ] && exit 0
    else
        said="SETUP failed"
    fi
    case $said in
        *"with 75"*) echo "tpu_pod.sh: interrupted and saved; resuming on a new slice" >&2 ;;
        *) [ "$(state)" = ACTIVE ] && fail "${said:-ssh failed}" # The slice still exists, so that its loss is not the reason.
            echo "tpu_pod.sh: the slice was preempted; resuming on a new one from the last checkpoint" >&2 ;;
    esac
    trap - EXIT
    delete
done

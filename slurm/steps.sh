# Functions of the batch scripts, which is where icm_hpc puts this file (placeholder "steps").
# Every srun states its nodes, its tasks and its environment: from Slurm 24.11 on a step would inherit them from component 0,
# and a site may set SBATCH_EXPORT=NONE. Every wait has a limit, and the script always exits.

unset "${!SQUEUE_@}" # a person's own filters and formats
# A person's token goes before the node's own credentials, and expires while the job runs.
unset SLURM_JWT

alive() { kill -0 "$1" 2>/dev/null; }
pause() { sleep 1 & wait $!; } # a signal ends the wait, and the script goes on

ended_within() { # seconds, process
  local limit=$((SECONDS + $1))
  while alive "$2" && [ $SECONDS -lt $limit ]; do pause; done
  ! alive "$2"
}

steps_of() { # job or component, name (default: any): prints the ids of its steps
  timeout 30 squeue --steps --noheader --format='%i %j' --jobs="$1" | while read -r id name; do
    case $id in *.[0-9]*) if [ "$name" = "${2:-$name}" ]; then echo "$id"; fi ;; esac
  done
}

end_step() { # name, job or component, process of its srun: by the step's id, since srun may not act on interrupts
  local signal
  for signal in TERM KILL; do
    steps_of "$2" "$1" | xargs --no-run-if-empty timeout 30 scancel --signal=$signal
    ended_within 20 "$3" && return
    kill -$signal "$3" # also one whose step was never created
  done
  ended_within 5 "$3" && return
  echo "the step $1 does not end: cancelling the job" >&2
  timeout 30 scancel "$SLURM_JOB_ID"
}

has_result() { [ -e "${logs}_0_result.pkl" ]; }
has_labels() { head --bytes=64 "${logs}_0_result.pkl" 2>/dev/null | grep --text --quiet success; }

await_driver() { # seconds, process of its srun: returns the driver's exit code
  if ended_within "$1" "$2"; then
    wait "$2"
    return
  fi
  echo "the driver did not end within a minute of its result, or of its server's end" >&2
  end_step driver "$SLURM_JOB_ID" "$2"
  has_labels || return 70
}

await_both() { # job or component of the server, process of its srun, of the driver's: returns the driver's exit code
  while alive "$2" && alive "$3" && ! has_result; do pause; done
  # A server that has ended has left a record, by which the driver saves its state and says why it fails; if it was
  # killed, one is left for it. If both are being preempted, or a node has failed, Slurm ends this script meanwhile.
  if ! ended_within 10 "$3" && ! alive "$2"; then timeout 30 "${record_server_end[@]}"; fi
  await_driver 50 "$3"
  local code=$?
  if alive "$2"; then end_step server "$1" "$2"; fi
  return $code
}

# Keeps an attempt's deadline on its own machine, when nobody else can. It comes before a task's script, in the same
# shell, and leaves that as it was: the watch runs aside, as no child of the shell (`wait` does not see it), holds none
# of its files, and goes soon after it. Added are one exported variable and one trap.
#
# At the deadline plus a notice (for a trainer that ends itself) everything that the shell started gets SIGTERM, after a
# grace SIGKILL, and the shell exits with 76 instead of beginning another command.
#
# Not only descendants are found: torchrun starts each rank in a session of its own, and an orphan has init as parent.
# They are known by the exported mark, which is this shell's alone: two nodes of a test may be one machine.

export AINFINITY_GUARD="$AINFINITY_ATTEMPT.$$.$(date +%s%N)"

# Prints the deadline as it stands, in whole Unix seconds, or nothing where there is none.
ainfinity_deadline() {
  local file="${AINFINITY_DEADLINE_FILE:-~/.ainfinity/attempts/$AINFINITY_ATTEMPT/deadline}" text=""
  # What `ainfinity extend` wrote stands over what the attempt was launched with; damaged text does not count.
  read -r text 2>/dev/null <"${file/#\~/$HOME}" || true
  case "${text%%.*}" in
    none) return ;;
    '' | *[!0-9]*) text="${AINFINITY_DEADLINE:-}" ;;
  esac
  text="${text%%.*}"
  case "$text" in '' | *[!0-9]*) ;; *) printf '%s\n' "$text" ;; esac
}

# Whether the deadline has passed, by at least so many seconds.
ainfinity_is_late() {
  local deadline
  deadline="$(ainfinity_deadline)"
  [ -n "$deadline" ] && [ "$(date +%s)" -ge "$((deadline + ${1:-0}))" ]
}

ainfinity_watch() {
  local shell="$1" guard="$AINFINITY_GUARD" born self step deadline left IFS=$' \t\n'
  local notice="${AINFINITY_NOTICE:-0}" grace="${AINFINITY_GRACE:-60}" poll="${AINFINITY_POLL:-5}"
  unset AINFINITY_GUARD # what this watch starts is none of the attempt's
  trap '' HUP INT TERM
  set +euf
  cd /
  exec </dev/null >/dev/null 2>&1
  # An interactive bash keeps copies of its files at high numbers, and who reads the task's output waits for them all.
  for left in /proc/"$BASHPID"/fd/*; do
    [ "${left##*/}" -le 2 ] || eval "exec ${left##*/}>&-"
  done

  # Prints `pid parent starttime` of those of the given processes that are alive.
  processes() {
    local pid stat
    for pid in "$@"; do
      { read -r stat <"/proc/$pid/stat"; } 2>/dev/null || continue
      set -- ${stat##*) }
      case "$1" in Z | X) ;; *) printf '%s %s %s\n' "$pid" "$2" "${20}" ;; esac
    done
  }

  # Prints `pid parent` of all that belongs to the shell, and of the shell itself only if it became another program.
  members() {
    {
      grep -lsaF "AINFINITY_GUARD=$guard" /proc/[0-9]*/environ | sed 's/[^0-9]//g; s/$/ marked/'
      (cd /proc && processes [0-9]*)
    } | awk -v shell="$shell" -v self="$self" '
      $2 == "marked" { found[$1] = 1; next }
      { parent[$1] = $2 }
      END {
        do {
          more = 0
          for (pid in parent)
            if (!(pid in found) && pid != self && (parent[pid] == shell || parent[pid] in found)) more = found[pid] = 1
        } while (more)
        for (pid in found) if (pid in parent && pid != self) print pid, parent[pid]
      }'
  }

  # The shell, and no later process with its pid.
  started() { processes "$shell" | cut -d ' ' -f 3; }
  shell_lives() { [ "$(started)" = "$born" ]; }
  anything_lives() { shell_lives || [ -n "$(members)" ]; }
  became_another() { members | grep -q "^$shell "; }
  tell() { printf 'ainfinity: %s\n' "$1" >"/proc/$shell/fd/2"; }

  watch() {
    self="$BASHPID"
    while anything_lives; do
      step="$poll"
      deadline="$(ainfinity_deadline)"
      if [ -n "$deadline" ]; then
        left=$((deadline + notice - $(date +%s)))
        [ "$left" -gt 0 ] || break
        [ "$left" -ge "$step" ] || step="$left"
      fi
      sleep "$step"
    done
    anything_lives || return 0

    tell "the deadline of this attempt has passed, it is asked to end"
    # First the shell's trap, which waits for the command that runs: so no other one begins after it.
    became_another || kill -s RTMIN+7 "$shell"
    # Only to those whose parent is not told as well: torchrun passes it on, and a rank that is told twice ends at once.
    members | awk '{ pid[$1] = $2 } END { for (one in pid) if (!(pid[one] in pid)) print one }' | xargs -r kill -s TERM
    for ((left = grace; left > 0; left--)); do
      anything_lives || return 0
      sleep 1
    done
    tell "it did not end in time and is killed"
    for ((left = 20; left > 0; left--)); do
      members | cut -d ' ' -f 1 | xargs -r kill -s KILL
      # The shell last: without its children it can still say how this ended.
      [ "$left" -gt 15 ] || ! shell_lives || kill -s KILL "$shell"
      anything_lives || return 0
      sleep 1
    done
  }

  # While the shell waits for this function, so that it is the shell's time of birth that is read.
  born="$(started)"
  watch &
}

if ainfinity_is_late; then
  echo "ainfinity: the deadline of this attempt has passed, it is not started" >&2
  exit 76
fi
trap 'exit 76' RTMIN+7
# In a subshell that ends at once: the watch's parent is init and not this shell.
(ainfinity_watch "$$")

#!/bin/bash
# scripts/slurm-cluster itself: two clusters side by side run jobs on all of their nodes, survive
# nothing they should not, and leave nothing behind.   usage: slurm_cluster_test.sh SCRIPT
set -u
cluster=$1
root=$(mktemp -d /tmp/fc-cluster-test.XXXXXX)
failures=0

expect() { # WHAT FOUND EXPECTED
  if [ "$2" = "$3" ]; then
    echo "ok: $1"
  else
    printf 'FAILED: %s\n  found:    %s\n  expected: %s\n' "$1" "$2" "$3"
    failures=$((failures + 1))
  fi
}
finish() {
  "$cluster" down --dir "$root/a"
  "$cluster" down --dir "$root/b"
  rm -rf "$root"
}
trap finish EXIT

on() { # CLUSTER COMMAND...
  (eval "$("$cluster" env --dir "$root/$1")" && shift && "$@")
}
node_names() { on "$1" srun "-N$2" bash -c 'echo $SLURMD_NODENAME' | sort | tr '\n' ' '; }
left_behind() { # processes (not dead ones) and links that name the directory
  grep -lsF -e "$root/$1/" /proc/[0-9]*/cmdline | while read -r file; do tr '\0' ' ' <"$file"; echo; done | grep -v '^grep '
  ip -o link show 2>/dev/null | grep -F "farcall:$root/$1"
}

"$cluster" up --dir "$root/a" --nodes 4 || exit 1
"$cluster" up --dir "$root/b" --nodes 2 || exit 1
expect 'four nodes run a step' "$(node_names a 4)" 'n1 n2 n3 n4 '
expect 'the second cluster is another one' "$(node_names b 2)" 'n1 n2 '
on a sbatch --wait -N2 --ntasks-per-node=1 -o "$root/out" --wrap 'srun bash -c "echo \$SLURMD_NODENAME"' >/dev/null
expect 'a batch job runs on both of its nodes' "$(sort "$root/out" | tr '\n' ' ')" 'n1 n2 '
expect 'up of a cluster that is up' "$("$cluster" up --dir "$root/a" 2>&1 | cut -d: -f2)" ' already up'

# The login side can be reached from a node at the address that env gives.
port_file=$root/port
/usr/bin/python3 - "$port_file" <<'PY' >"$root/heard" &
import os, socket, sys
s = socket.create_server(("0.0.0.0", 0)); s.settimeout(30)
with open(sys.argv[1] + ".new", "w") as f: f.write(str(s.getsockname()[1]))
os.rename(sys.argv[1] + ".new", sys.argv[1])
print(s.accept()[0].recv(100).decode().strip())
PY
listener=$!
until [ -s "$port_file" ] || ! kill -0 $listener; do sleep 0.05; done
on a srun -N1 bash -c "echo hello >/dev/tcp/\$FARCALL_TEST_ADDRESS/$(cat "$port_file")"
wait $listener
expect 'a node reaches the login side' "$(cat "$root/heard")" hello

# Down with a job that runs, of a cluster whose controller and munge were killed.
on a sbatch -N4 -o /dev/null --wrap 'srun sleep 600' >/dev/null
kill -9 "$(cat "$root/a/run/slurmctld.pid")" "$(cat "$root/a/run/munged.pid")"
"$cluster" status --dir "$root/a" >/dev/null 2>&1
expect 'status of a broken cluster' $? 1
"$cluster" down --dir "$root/a"
expect 'down after a crash' $? 0
expect 'nothing is left' "$(left_behind a)" ''
expect 'its directory is gone' "$(ls "$root/a" 2>/dev/null)" ''
"$cluster" status --dir "$root/a" >/dev/null 2>&1
expect 'status of none' $? 3
"$cluster" down --dir "$root/a"
expect 'down again' $? 0
expect 'the other cluster did not notice' "$(node_names b 2)" 'n1 n2 '

# The same on a shared host, where a job outlives its slurmd.
"$cluster" down --dir "$root/b"
"$cluster" up --dir "$root/b" --nodes 2 --mode shared || exit 1
expect 'shared nodes' "$(node_names b 2)" 'n1 n2 '
on b sbatch -N2 -o /dev/null --wrap 'srun sleep 600' >/dev/null
until [ "$(on b squeue -h -o %t)" = R ]; do sleep 0.05; done
"$cluster" down --dir "$root/b"
expect 'nothing is left of shared nodes' "$(left_behind b)" ''
[ $failures = 0 ]

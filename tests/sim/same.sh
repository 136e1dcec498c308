#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# same.sh SEEDS BUILD...: a seed is one run. Runs the seeds twice with the simulator of each build folder, in one process
# and in several, and compares what all of it hashes to.
set -euo pipefail
seeds=$1
shift
expected=
for build in "$@"; do
    for jobs in 1 2; do
        hash=$("$build/tests/sim/lockstep-sim" --machine "$build/kv.so" --seeds "$seeds" --jobs "$jobs" | sed -n 's/.*; hash //p')
        printf '%s  %s, %s processes\n' "${hash:-failed}" "$build" "$jobs"
        [ -n "$hash" ] || exit 1
        if [ "$hash" != "${expected:=$hash}" ]; then
            printf 'not the same run; to find the seed: lockstep-sim --verbose with both\n'
            exit 1
        fi
    done
done

#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# finds.sh SIMULATOR MACHINE WHAT: the machine has a mistake; a few seeds must find it and say WHAT.
set -uo pipefail
said=$("$1" --machine "$2" --seeds 20 2>&1)
status=$?
if [ "$status" -eq 1 ] && grep -q "$3" <<<"$said" && grep -q 'To replay it: lockstep-sim' <<<"$said"; then exit 0; fi
printf 'it ended with %s and said:\n%s\n' "$status" "$said"
exit 1

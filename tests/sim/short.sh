#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# short.sh SIMULATOR MACHINE: as many seeds as this kind of test run has time for; the same ones each time.
set -euo pipefail
seeds=100
[ -z "${LOCKSTEP_SHORT:-}" ] || seeds=3
[ -z "${LOCKSTEP_FULL:-}" ] || seeds=2000
exec "$1" --machine "$2" --seeds "$seeds"

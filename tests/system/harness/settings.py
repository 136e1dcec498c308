# SPDX-License-Identifier: Apache-2.0
"""Where the programs lie, how long a test may be, and the seed. All from the environment, all with a default.

LOCKSTEP_BUILD     the build folder (default: build/ beside this tree)
LOCKSTEP_SEED      replays the random choices of a printed seed; what processes and disks do is not replayed
LOCKSTEP_FULL=1    every loop at full length: 20 kill rounds
LOCKSTEP_SHORT=1   every loop at its shortest, for sanitizer builds: 1 round
LOCKSTEP_TRANSPORT_SHARED_MEMORY=off   nodes of all clusters replicate by TCP alone (test_shared_memory, test_tail: they need it)
"""
import os
import pathlib
import random
import sys

SOURCE = pathlib.Path(__file__).resolve().parents[3]
BUILD = pathlib.Path(os.environ.get("LOCKSTEP_BUILD", SOURCE / "build")).resolve()
PROGRAM = BUILD / "lockstep"
DUMP_LOG = BUILD / "tests" / "system" / "dump_log"
BAD_DISK = BUILD / "tests" / "system" / "bad_disk.so"  # preloaded: a slow disk, one that hangs, one that fails
FAILING_META = BUILD / "tests" / "system" / "failing_meta.so"  # preloaded: LMDB's meta page cannot be written
RECORDER = BUILD / "tests" / "powercut" / "recorder.so"  # preloaded: every call that changes a file is put down
CUT = BUILD / "tests" / "powercut" / "cut"  # crash images from such a recording
TEMPORARY = BUILD / "tests" / "system" / "tmp"  # beside the build, not /tmp: that may be memory, which is no disk

FULL = os.environ.get("LOCKSTEP_FULL", "") not in ("", "0")
SHORT = not FULL and os.environ.get("LOCKSTEP_SHORT", "") not in ("", "0")
SLOW = os.environ.get("LOCKSTEP_SANITIZER", "none") != "none"  # instrumented programs: several times slower

SHARED_MEMORY = os.environ.get("LOCKSTEP_TRANSPORT_SHARED_MEMORY", "")  # "" = as nodes do by themselves

SEED = int(os.environ.get("LOCKSTEP_SEED") or random.SystemRandom().getrandbits(32))

# Nodes are asked straight, by clients of every kind, whatever proxy is there for the world outside.
for _name in ("no_proxy", "NO_PROXY"):
    os.environ[_name] = ",".join(filter(None, [os.environ.get(_name), "127.0.0.1", "localhost"]))

# While calls fail at once because a node does not run yet, nobody but this poller of gRPC's looks whether the next dial has
# succeeded: every 5 s, if nothing is said.
os.environ.setdefault("GRPC_CLIENT_CHANNEL_BACKUP_POLL_INTERVAL_MS", "100")

# The stubs are made by meson.
sys.path.insert(0, str(BUILD / "tests" / "system" / "stubs"))


def by_length(short, normal, full):
    return short if SHORT else full if FULL else normal


def patience(seconds):
    """A bound that only a hang reaches, from the seconds that a busy host needs; instrumented programs get more."""
    return seconds * (4 if SLOW else 2)


HANG_SECONDS = patience(150)  # of one test, unless it has its full length: beyond every wait in it

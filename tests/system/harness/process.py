# SPDX-License-Identifier: Apache-2.0
"""Processes that end with the test: killed by pid on every way out, and by the kernel if the test itself is killed."""
import os
import pathlib
import signal
import subprocess

# Lines that instrumented programs and lk_assert write; none may stand in any output of ours.
REPORTS = (b"ERROR: AddressSanitizer", b"ERROR: LeakSanitizer", b"WARNING: ThreadSanitizer", b"runtime error:",
           b"assertion failed", b"lk_assert")


def clean_environment(extra=None):
    """The test's own environment without what would configure a node or a client by accident."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("LOCKSTEP_")}
    environment.update(extra or {})
    return environment


def dies_with_us(command):
    """setpriv execs, so that the process keeps the pid that is started here."""
    return ["setpriv", "--pdeathsig", "KILL", "--", *map(str, command)]


def start(command, output, environment=None, directory=None, prefix=()):
    """Start it in the background. output: file that gets both stdout and stderr, appended."""
    with open(output, "ab") as file:
        return subprocess.Popen([*map(str, prefix), *dies_with_us(command)], stdin=subprocess.DEVNULL, stdout=file,
                                stderr=subprocess.STDOUT, env=clean_environment(environment), cwd=directory)


def start_on(command, descriptor, environment=None):
    """The same with a descriptor of the caller's as standard error; the command is complete."""
    return subprocess.Popen([*map(str, command)], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                            stderr=descriptor, env=clean_environment(environment))


def run(command, seconds=30, environment=None, directory=None, prefix=(), stdin=b""):
    """Run it to its end, bounded. Returns (exit code, stdout, stderr), both as text."""
    done = subprocess.run([*map(str, prefix), *dies_with_us(command)], input=stdin, capture_output=True,
                          timeout=seconds, env=clean_environment(environment), cwd=directory, check=False)
    return done.returncode, done.stdout.decode("utf-8", "replace"), done.stderr.decode("utf-8", "replace")


def end(popen, seconds=30):
    """Kill it if it lives, by pid, and reap it."""
    if popen.poll() is None:
        popen.send_signal(signal.SIGCONT)
        popen.kill()
    return popen.wait(seconds)


def resident_bytes(pid):
    for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise ProcessLookupError(pid)


def cpu_seconds(pid):
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def states(pid):
    """Of every thread, a letter as in /proc; empty when it is gone."""
    found = ""
    try:
        for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
            found += (task / "stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        pass
    return found


def is_alive(pid):
    return any(state not in "ZX" for state in states(pid))


def is_stopped(pid):
    return set(states(pid)) == {"T"}

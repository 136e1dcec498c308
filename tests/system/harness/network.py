# SPDX-License-Identifier: Apache-2.0
"""Links that can be cut: a network namespace for each node, veth pairs into a bridge, DROP rules.

The test's own process moves into a namespace that it makes (enter, before any thread exists); the bridge lies there,
with the clients' address. Each node's namespace is held by a process of ours, so that the kernel takes all of them
away with us, whatever happens. Nothing outside is touched.

  [clients 10.77.0.254 - bridge] -- veth -- [n1 10.77.0.1]
                                 -- veth -- [n2 10.77.0.2] ...
A cut n1 -> n2 is a rule in n2 that drops what comes from n1: packets, so TCP's acknowledgements too.
"""
import ctypes
import os
import subprocess
import threading

from harness import process

os.environ["PATH"] = os.environ.get("PATH", "/usr/bin:/bin") + ":/usr/sbin:/sbin"
CLONE_NEWNET = 0x40000000
PREFIX = "10.77.0."
CLIENT = PREFIX + "254"


def _command(*words):
    done = subprocess.run(words, capture_output=True, check=False, timeout=20)
    if done.returncode != 0:
        raise AssertionError(f"network namespaces cannot be used here, and this test is nothing without them: "
                             f"{' '.join(words)}: {done.stderr.decode('utf-8', 'replace').strip()}; run it as root on "
                             f"a kernel with net namespaces, veth, bridge and netfilter")


def enter():
    """Move this process into a namespace of its own. Once, while it has one thread."""
    assert threading.active_count() == 1
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNET) != 0:
        raise AssertionError(f"network namespaces cannot be used here, and this test is nothing without them: unshare: "
                             f"{os.strerror(ctypes.get_errno())}; run it as root")
    _command("ip", "link", "set", "lo", "up")


class Network:
    """Made after enter(). names: the nodes'."""
    made = 0

    def __init__(self, names):
        Network.made += 1  # a namespace, and its link in ours, goes some time after its last process
        self.names = list(names)
        self._holders = {}
        try:
            self._make()
        except BaseException:
            self.close()
            raise

    def _make(self):
        _command("ip", "link", "add", "bridge", "type", "bridge")
        _command("ip", "address", "add", CLIENT + "/24", "dev", "bridge")
        _command("ip", "link", "set", "bridge", "up")
        for name in self.names:
            holder = subprocess.Popen(["unshare", "--net", "--", *process.dies_with_us(["cat"])],
                                      stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            self._holders[name] = holder
            holder.stdin.write(b"ready\n")
            holder.stdin.flush()
            holder.stdout.readline()  # cat answers: it lives in its namespace
            link = f"to-{name}-{Network.made}"
            _command("ip", "link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", str(holder.pid))
            _command("ip", "link", "set", link, "master", "bridge", "up")
            self._inside(name, "ip", "address", "add", self.address(name) + "/24", "dev", "eth0")
            self._inside(name, "ip", "link", "set", "eth0", "up")
            self._inside(name, "ip", "link", "set", "lo", "up")

    def address(self, name):
        return PREFIX + str(self.names.index(name) + 1)

    def prefix(self, name):
        """What stands before a command that shall run there; it execs."""
        return ["nsenter", f"--net=/proc/{self._holders[name].pid}/ns/net", "--"]

    def _inside(self, name, *words):
        _command(*self.prefix(name), *words)

    def cut(self, source, target):
        """Nothing from source reaches target any more."""
        self._inside(target, "iptables", "-w", "-A", "INPUT", "-s", self.address(source), "-j", "DROP")

    def cut_both(self, one, other):
        self.cut(one, other)
        self.cut(other, one)

    def isolate(self, name):
        """From every other node; clients still reach it."""
        for other in self.names:
            if other != name:
                self.cut_both(name, other)

    def heal(self):
        for name in self.names:
            self._inside(name, "iptables", "-w", "-F", "INPUT")

    def close(self):
        for holder in self._holders.values():
            process.end(holder)
            holder.stdin.close()
            holder.stdout.close()
        self._holders.clear()
        subprocess.run(["ip", "link", "delete", "bridge"], capture_output=True, check=False, timeout=20)

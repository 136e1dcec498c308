# SPDX-License-Identifier: Apache-2.0
"""Bad input to `lockstep serve`: what it says, how it exits, and that it leaves everything as it was."""
import hashlib
import pathlib
import re
import shutil
import socket
import struct
import subprocess

from harness import process, settings
from harness.case import Case, main, say
from harness.cluster import until
from harness.ports import free_port

GOOD = '''cluster = "system"
machine = "kv"
[node.n1]
client = "127.0.0.1:{client}"
peer = "127.0.0.1:{peer}"
data = "n1"
[limits]
ring = "16MiB"
[storage]
journal = "64MiB"
map = "1GiB"
'''


def picture(directory):
    """Every file below it with its content."""
    return {str(p.relative_to(directory)): hashlib.sha256(p.read_bytes()).hexdigest() if p.is_file() else None
            for p in sorted(pathlib.Path(directory).rglob("*"))}


def crc32c(data):
    crc = 0xffffffff
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82f63b78 if crc & 1 else 0)
    return crc ^ 0xffffffff


class BadConfiguration(Case):
    def setUp(self):
        super().setUp()
        self.file = pathlib.Path(self.directory) / "lockstep.toml"

    def refuses(self, text, pattern, *arguments, environment=None, place=None, file=None):
        """Exit 2, one line `lockstep: file:line:column: what; what instead`, nothing created."""
        if text is not None:
            self.file.write_bytes(text if isinstance(text, bytes) else text.encode())
        before = picture(self.directory)
        code, out, err = process.run([settings.PROGRAM, "serve", "--config", file or self.file, *arguments],
                                     seconds=settings.patience(30), environment=environment)
        self.assertEqual(code, 2, err)
        self.assertEqual(out, "")
        self.assertRegex(err, pattern)
        self.assertEqual(err.count("\n"), 1, err)
        self.assertTrue(err.startswith("lockstep: "), err)
        self.assertRegex(err, "; |[?] ", "it does not say what to do")
        if place:  # line, or line:column
            self.assertRegex(err, rf"lockstep\.toml:{place}:{'' if ':' in place else r'[0-9]+:'} ")
        self.assertEqual(picture(self.directory), before, "something was created")
        return err

    def good(self, old="", new=""):
        text = GOOD.format(client=free_port(), peer=free_port())
        self.assertIn(old, text)
        return text.replace(old, new, 1)

    def test_errors_in_the_file_name_file_line_and_column(self):
        for old, new, place, pattern in (
                ("cluster = ", "cluster ", "1", "="),
                ('"system"', '"system', "1", "string|quote|newline"),
                ("[limits]", "[limits", "7", "]"),
                ('cluster = "system"', 'cluster = "a"\ncluster = "b"', "2:1", "cluster"),
                ('machine = "kv"', 'machine = 5', "2:11", "machine.*string"),
                ('"16MiB"', "16", "8:8", "ring.*MiB"),
                ('"16MiB"', '"16MB"', "8:8", "ring.*16MB"),
                ('"16MiB"', '"1MiB"', "8:8", "ring.*1MiB"),
                ('"16MiB"', '"17MiB"', "8:8", "power of two"),
                ('"64MiB"', '"32MiB"', "10:11", "journal.*four times"),
                ("[limits]", "[limit]", "7:2", "limit"),
                ("ring = ", "rang = ", "8:1", 'rang.*"ring"'),
                ("data = ", "date = ", "6:1", 'date.*"data"'),
                ('cluster = "system"', 'cluster = "a b"', "1:11", "a b"),
                ('cluster = "system"', 'cluster = "system"\ndurability = "fast"', "2:14", "durability.*fast"),
                ('machine = "kv"', 'machine = "kv"\ncolour = "red"', "3:1", "colour"),
                ("[limits]", '[raft]\nheartbeat = "300ms"\nelection_timeout = "300ms"\n[limits]', "8:13",
                 "heartbeat.*election_timeout"),
                ("[limits]", '[raft]\nheartbeat = "60"\n[limits]', "8:13", "heartbeat.*60"),
                ("[limits]", '[limits]\nconnections = "many"', "8:15", "connections"),
                ("[limits]", '[limits]\ncommand = "4MiB"', "8:11", "command.*block"),
                ("[limits]", '[limits]\nblock = "4MiB"', "8:9", "block.*grpc_message"),
                ("127.0.0.1:", "127.0.0.1", "4:10", "HOST:PORT"),
                ('data = "n1"\n', "", "3", "data"),
                ('data = "n1"\n', 'data = 1\n', "6:8", "data.*string"),
        ):
            with self.subTest(new=new):
                self.refuses(self.good(old, new), pattern, place=place)
        self.refuses(b"cluster = \"\xff\"\n", "UTF-8", place="1")

    def test_what_is_missing_is_named(self):
        self.refuses(self.good('cluster = "system"\n'), "no cluster")
        self.refuses(self.good('machine = "kv"\n'), "no machine")
        self.refuses('cluster = "a"\nmachine = "kv"\n', r"\[node")
        self.refuses(None, "No such file", file=pathlib.Path(self.directory) / "absent.toml")
        self.refuses(None, "directory", file=self.directory)

    def test_two_nodes_at_one_address_are_refused(self):
        text = self.good()
        more = re.sub(r"127.0.0.1:\d+", "127.0.0.1:20001", text[text.index("[node"):text.index("[limits]")])
        self.refuses(text.replace("[limits]", more.replace("n1", "n2") + "[limits]"), "20001", "--node", "n1")

    def test_a_wrong_node_name_lists_those_that_there_are(self):
        self.refuses(self.good(), "n9.*n1", "--node", "n9")
        text = self.good().replace("[limits]", '[node.n2]\nclient = "127.0.0.1:20002"\npeer = "127.0.0.1:20003"\n'
                                   'data = "n2"\n[limits]')
        self.refuses(text, "--node.*n1, n2")

    def test_environment_and_flags_beat_the_file_and_are_named_in_errors(self):
        self.refuses(self.good(), "LOCKSTEP_LIMITS_RING.*5", environment={"LOCKSTEP_LIMITS_RING": "5"})
        self.refuses(self.good(), "--limits.ring.*7", "--limits.ring", "7", environment={"LOCKSTEP_LIMITS_RING": "32MiB"})
        self.refuses(self.good(), "--limits.rang", "--limits.rang", "7")


class BadPlugins(Case):
    """Each is named with what is wrong; exit 2."""

    def refuses(self, machine, pattern):
        file = pathlib.Path(self.directory) / "lockstep.toml"
        file.write_text(GOOD.format(client=free_port(), peer=free_port()).replace('"kv"', f'"{machine}"'))
        code, out, err = process.run([settings.PROGRAM, "serve", "--config", file], seconds=settings.patience(30))
        self.assertEqual(code, 2, err)
        self.assertRegex(err.splitlines()[-1], "^lockstep: .*" + pattern)
        self.assertFalse((pathlib.Path(self.directory) / "n1" / "identity").exists(), "the node was born")

    def compile(self, name, source):
        path = pathlib.Path(self.directory) / name
        path.with_suffix(".c").write_text(source)
        done = subprocess.run(["cc", "-shared", "-fPIC", f"-I{settings.SOURCE}/include", "-o", path,
                               path.with_suffix(".c")], capture_output=True, check=False)
        self.assertEqual(done.returncode, 0, done.stderr.decode())
        return path

    def test_no_such_file_and_no_such_name(self):
        self.refuses("./absent.so", "absent.so")
        self.refuses("absent", "absent.so.*LOCKSTEP_MACHINES")

    def test_what_is_no_plugin(self):
        (pathlib.Path(self.directory) / "text.so").write_text("this is text")
        self.refuses("./text.so", "text.so")
        self.refuses("./", "no file")
        (pathlib.Path(self.directory) / "empty.so").touch()
        self.refuses("./empty.so", "empty")

    def test_a_plugin_without_the_symbol(self):
        self.compile("without.so", "int something;\n")
        self.refuses("./without.so", "lockstep_machine.*ABI")

    def test_a_plugin_of_another_abi_names_both_versions(self):
        self.compile("other.so", """#include "lockstep/machine.h"
            LOCKSTEP_MACHINE_EXPORT const struct lockstep_machine lockstep_machine = {
                .size = sizeof(struct lockstep_machine), .abi = 99, .name = "other", .version = "1"};
            """)
        self.refuses("./other.so", "ABI 99.*ABI 1")

    def test_a_plugin_that_lacks_what_it_must_have(self):
        self.compile("lacking.so", """#include "lockstep/machine.h"
            LOCKSTEP_MACHINE_EXPORT const struct lockstep_machine lockstep_machine = {
                .size = sizeof(struct lockstep_machine), .abi = LOCKSTEP_MACHINE_ABI, .name = "lacking", .version = "1"};
            """)
        self.refuses("./lacking.so", "it has no open")

    def test_a_plugin_whose_library_is_missing_or_whose_symbol_is(self):
        self.compile("missing.so", "extern int nowhere(void); int (*pointer)(void) = nowhere;\n")
        self.refuses("./missing.so", "nowhere")


class BadDirectories(Case):
    """A directory that is not this node's own is named, refused, untouched."""

    def make(self, nodes=1, name="system", directory=None):
        """A cluster that has been born, has a few commands, and was stopped."""
        cluster = self.cluster(nodes=nodes, name=name, directory=directory or f"{self.directory}/{name}").start()
        leader = cluster.leader()
        for number in range(20):
            leader.write(b"put k%d v" % number)
        cluster.wait_equal()
        cluster.stop()
        return cluster

    def refuses(self, node, code, pattern, keep=True):
        shutil.rmtree(node.data / "plugins", ignore_errors=True)
        before = picture(node.data)
        node.output.unlink(missing_ok=True)
        node.start()
        self.assertEqual(node.wait_exit(), code, node.tail())
        self.assertRegex(node.tail(5), pattern)
        self.assertIn(str(node.data), node.tail(5))
        if keep:
            self.assertEqual(picture(node.data), before, "it was touched")
            self.assertFalse((node.data / "plugins").exists(), "it has got a copy of the plugin")

    def test_a_directory_of_another_cluster(self):
        theirs, ours = self.make(name="theirs"), self.make(name="ours")
        shutil.rmtree(ours.nodes[0].data)
        shutil.copytree(theirs.nodes[0].data, ours.nodes[0].data)
        self.refuses(ours.nodes[0], 1, "theirs.*ours|ours.*theirs")

    def test_a_directory_of_another_node(self):
        cluster = self.make(nodes=3)
        shutil.rmtree(cluster["n1"].data)
        cluster["n2"].data.rename(cluster["n1"].data)
        self.refuses(cluster["n1"], 1, "n2.*n1")

    def test_a_directory_that_another_process_uses(self):
        cluster = self.make()
        [node] = cluster.nodes
        node.start()
        cluster.leader()
        other = cluster.directory / "other.toml"
        other.write_text(GOOD.format(client=free_port(), peer=free_port()))
        code, out, err = process.run([settings.PROGRAM, "serve", "--config", other], seconds=settings.patience(30))
        self.assertEqual(code, 1, err)
        self.assertRegex(err, f"{re.escape(str(node.data))}.*in use by another process")
        self.assertEqual(node.write(b"put still here").code, 0)

    def test_an_address_that_is_in_use(self):
        cluster = self.cluster(nodes=1)
        [node] = cluster.nodes
        for port in (node.client_port, node.peer_port):
            with socket.socket() as taken:
                taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                taken.bind(("127.0.0.1", port))
                taken.listen()
                node.output.unlink(missing_ok=True)
                node.start()
                self.assertEqual(node.wait_exit(), 1, node.tail())
                self.assertRegex(node.tail(3), f"{port}.*in use")

    def test_a_directory_of_a_newer_format(self):
        cluster = self.make()
        [node] = cluster.nodes
        self.rewrite_identity(node, 99)
        self.refuses(node, 1, "newer.*format 99")

    @staticmethod
    def rewrite_identity(node, number):
        """Another format number (bytes 8 to 11), and the checksum (bytes 4 to 7, of all behind it) right again."""
        data = bytearray((node.data / "identity").read_bytes())
        data[8:12] = struct.pack("<I", number)
        data[4:8] = struct.pack("<I", crc32c(data[8:]))
        (node.data / "identity").write_bytes(data)

    def test_damaged_files(self):
        """Every byte of the identity; the journal; data.mdb. Damage is named and the exit code is 7."""
        cluster = self.make()
        [node] = cluster.nodes
        saved = node.data.with_name("saved")
        shutil.copytree(node.data, saved)
        identity = node.data / "identity"
        data = identity.read_bytes()
        for at in sorted(self.random.sample(range(len(data)), 8)):
            identity.write_bytes(data[:at] + bytes([data[at] ^ 0x55]) + data[at + 1:])
            self.refuses(node, 7, "identity.*damaged")
        identity.write_bytes(data[:len(data) // 2])
        self.refuses(node, 7, "identity.*damaged")
        identity.write_bytes(data)
        with open(node.data / "data.mdb", "r+b") as file:
            file.truncate(100)
        self.refuses(node, 7, "data.mdb")

    def test_an_emptied_directory_is_no_voter_and_says_what_to_do(self):
        cluster = self.make(nodes=3)
        wiped = cluster["n3"]
        shutil.rmtree(wiped.data)
        cluster.start()
        until(lambda: b"no voter" in wiped.output.read_bytes(), settings.patience(20),
              lambda: "the emptied node says so\n" + wiped.tail())
        self.assertIn(b"lockstep member replace n3", wiped.output.read_bytes())
        status = until(wiped.status, settings.patience(20), lambda: "it answers\n" + wiped.tail())
        self.assertEqual(status.role, "unborn")
        say(wiped.tail(3))
        self.assertEqual(cluster.leader(among=[cluster["n1"], cluster["n2"]]).write(b"put without n3").code, 0)

    def test_a_copied_directory_that_is_older_is_refused_by_the_others(self):
        cluster = self.cluster(nodes=3).start()
        cluster.wait_equal()
        copied = cluster["n3"]
        others = [cluster["n1"], cluster["n2"]]
        self.assertEqual(copied.terminate(), 0)
        copy = copied.data.with_name("copy")
        shutil.copytree(copied.data, copy)
        for _ in range(2):  # each start raises the boot counter, and the others see it
            copied.start()
            cluster.wait_equal()
            self.assertEqual(copied.terminate(), 0)
        shutil.rmtree(copied.data)
        copy.rename(copied.data)
        copied.start()

        def noticed():
            return all(any("copy" in m.note for m in n.status_now().members) for n in others)
        until(noticed, settings.patience(20), lambda: f"the copy is refused\n{cluster.tails()}")
        say(next(m.note for m in others[0].status_now().members if m.note))
        self.assertEqual(cluster.leader(among=others).write(b"put without n3").code, 0)

    def test_a_setting_that_differs_from_the_directory_is_an_error_with_both_values(self):
        cluster = self.make()
        [node] = cluster.nodes
        cluster.name = "renamed"
        cluster.write_config()
        self.refuses(node, 1, "system.*renamed|renamed.*system")


if __name__ == "__main__":
    main()

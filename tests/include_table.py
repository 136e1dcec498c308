#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Checks the tree's order: who includes whom, where each library lives, and what may stand in a file.

  T1  A file includes only what the table FOLDERS gives its folder, written from the tree's root.
  T2  Each library has one home (HOMES); a header that is neither known there nor the system's is refused.
  T3  The consensus core includes nothing that reaches outside itself; server/node*.[ch] neither loop nor threads.
  T4  Each folder has a README.md.
  T5  No file is longer than LINES_MAX, and text is clean: UTF-8, LF, no blanks at line ends, a licence line in sources.
  T6  No file speaks of a machine's paths or of work left for later.

Prints `file:line: what; what instead` for each violation and exits 1. First it shows itself that each rule still bites.
"""
import os
import re
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

# folder: prefixes of what it may include, besides itself. The list of error codes is for everybody.
FOR_ALL = ["lockstep/errors.h"]
FOLDERS = {
    "include/lockstep": [],
    "base": ["lockstep/"],
    "raft": ["base/"],
    "proto": ["base/"],
    "storage": ["base/", "proto/block.h", "proto/ring_segment.h"],
    "transport": ["base/", "proto/", "raft/message.h", "storage/ring.h", "storage/log.h"],
    "statemachine/machines": ["lockstep/"],
    "statemachine": ["base/", "lockstep/", "proto/block.h", "storage/ring.h", "storage/log.h"],
    "server": ["lockstep/", "base/", "raft/", "proto/", "storage/", "transport/", "statemachine/"],
    "client": ["lockstep/", "base/", "proto/"],
    "cli": ["lockstep/", "base/", "raft/", "proto/", "storage/", "transport/", "statemachine/", "server/", "client/"],
    "examples": ["lockstep/"],
    "tests": [""],
}

# library header, as a prefix: the folders or files that may include it.
HOMES = {
    "uv.h": ["transport/", "server/"],
    "lmdb.h": ["storage/"],
    "nghttp2/": ["proto/"],
    "protobuf-c/": ["proto/"],
    "openssl/": ["transport/", "statemachine/plugin.c"],
    "isa-l": ["base/crc32c.c"],
    "xxhash.h": ["statemachine/"],
    "zstd": ["storage/compress.c"],
    "dlfcn.h": ["statemachine/plugin.c"],
    "elf.h": ["statemachine/plugin.c"],
    "link.h": ["statemachine/plugin.c", "tests/sim/copies.c"],
    "check.h": ["tests/"],
    "sanitizer/": ["base/", "tests/"],
}

C_LIBRARY = set("""assert ctype errno float inttypes limits locale math signal stdalign stdarg stdatomic stdbool stddef
    stdint stdio stdlib stdnoreturn string time""".split())
SYSTEM = C_LIBRARY | set("""dirent endian fcntl ftw getopt grp ifaddrs libgen malloc netdb poll pthread pwd sched semaphore
    setjmp spawn strings syslog termios ucontext unistd execinfo""".split())
SYSTEM_FOLDERS = ("sys/", "linux/", "net/", "netinet/", "arpa/", "bits/")

# The core: no input, no output, no clock, no memory of its own.
CORE_SYSTEM = {"assert.h", "inttypes.h", "limits.h", "stdalign.h", "stdarg.h", "stdbool.h", "stddef.h", "stdint.h", "string.h"}
NODE_NEVER = ("uv.h", "pthread.h", "nghttp2/")

LINES_MAX = 1200
SOURCES = (".c", ".h", ".proto", ".py", ".sh", ".js", "meson.build", "meson_options.txt")
NOT_TEXT = ("tests/fuzz/corpus/",)  # inputs of parsers: any bytes

# In pieces, so that this file does not find itself.
FORBIDDEN = [
    (r"\b(TO" + r"DO|FIX" + r"ME|XX" + r"X)\b", "work left for later"),
    (r"(?<![\w.])/(home|root|Users|wo" + r"rk)/", "a path of one machine"),
    (r"\b(design|style|libraries)\.m" + r"d\b|(?<!\btests/)\bscenarios\.m" + r"d\b", "a document that is not in this tree"),
]

INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]')


def folder_of(path):
    """The longest folder of the table that path lies in, or None."""
    return max((f for f in FOLDERS if path.startswith(f + "/")), key=len, default=None)


def includes(path, text, known):
    """T1 to T3: yields (line number, what)."""
    folder = folder_of(path)
    for number, line in enumerate(text.splitlines(), 1):
        match = INCLUDE.match(line)
        if not match:
            continue
        quote, header = match.groups()
        home = next((homes for library, homes in HOMES.items() if header.startswith(library)), None)
        system = header.endswith(".h") and (header[:-2] in SYSTEM or header.startswith(SYSTEM_FOLDERS))
        if folder is None:
            yield number, f"{path} lies in no folder of the table; move it, or name its folder in tests/include_table.py"
        elif home is not None:
            if not path.startswith(tuple(home)):
                yield number, f"<{header}> lives in {', '.join(home)}; go through what is there"
        elif quote == "<" and header.startswith("lockstep/") and folder == "examples":
            pass  # a user's project sees installed headers
        elif quote == "<" and not system:
            yield number, f"<{header}> is a library without a home; give it one in tests/include_table.py"
        elif quote == '"' and "/" not in header and folder not in ("examples", "statemachine/machines"):
            yield number, f'"{header}" is not written from the root; write "{folder}/{header}"'
        elif quote == '"' and "/" in header:
            own = "lockstep/" if folder == "include/lockstep" else folder + "/"
            allowed = FOLDERS[folder] + FOR_ALL + [own]
            if not header.startswith(tuple(allowed)):
                yield number, f'{folder}/ may not include "{header}"; it may: {" ".join(allowed)}'
            elif folder == "tests" and header.split("/")[0] not in known:
                yield number, f'"{header}" is not written from the root'
        if path.startswith("raft/") and quote == "<" and header not in CORE_SYSTEM:
            yield number, f"raft/ computes and nothing else, <{header}> reaches outside; hand it in as an event"
        if re.match(r"server/node[^/]*\.[ch]$", path) and header.startswith(NODE_NEVER):
            yield number, f"server/node*.[ch] is run by the simulator too, without <{header}>; put it beside the node"
        if path.startswith("statemachine/machines/") and quote == "<" and header[:-2] not in C_LIBRARY:
            yield number, f"a machine is deterministic: <{header}> is not of the C library; take it from the host"


def text_rules(path, data):
    """T5, T6: yields (line number, what)."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        yield 1, "is not UTF-8 text; nothing binary or generated lives in the tree"
        return
    if "\0" in text:
        yield 1, "holds NUL bytes; nothing binary or generated lives in the tree"
        return
    lines = text.split("\n")
    if lines[-1] != "":
        yield len(lines), "the last line has no end; end it with a newline"
    if len(lines) - 1 > LINES_MAX and path != "LICENSE":
        yield LINES_MAX + 1, f"{len(lines) - 1} lines, more than {LINES_MAX}; divide the file by what it is about"
    if path.endswith(SOURCES) and not any("SPDX-License-Identifier: Apache-2.0" in line for line in lines[:3]):
        yield 1, "no licence line; begin with SPDX-License-Identifier: Apache-2.0"
    for number, line in enumerate(lines, 1):
        if line.endswith("\r"):
            yield number, "ends in CR LF; save it with LF"
        elif line != line.rstrip():
            yield number, "blanks at its end; remove them"
        if "\t" in line and path.endswith((".c", ".h", ".py", "meson.build")):
            yield number, "a tab; write blanks, or an escape"
        for pattern, what in FORBIDDEN:
            if re.search(pattern, line):
                yield number, f"{what}; take it out"


def check(files):
    """files: {path: bytes}. The violations as printed, in order."""
    found = []
    known = {path.split("/")[0] for path in files} | {"lockstep"}
    for path in sorted(files):
        if path.startswith(NOT_TEXT):
            continue
        found += [f"{path}:{number}: {what}" for number, what in text_rules(path, files[path])]
        if path.endswith((".c", ".h")):
            text = files[path].decode("utf-8", "replace")
            found += [f"{path}:{number}: {what}" for number, what in includes(path, text, known)]
    present = {folder.split("/")[0] for folder in FOLDERS} & known
    for folder in sorted(present):
        if f"{folder}/README.md" not in files:
            found.append(f"{folder}/README.md:1: is missing; say what lives in the folder, its words, rules and failures")
    return found


def read_tree():
    """Every file that is or would be committed; without git, all but what is built."""
    git = ["git", "-c", f"safe.directory={ROOT}", "-C", ROOT, "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        names = subprocess.run(git, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True).stdout
        paths = [os.fsdecode(name) for name in names.split(b"\0") if name]
    except (OSError, subprocess.CalledProcessError):
        paths = []
        for folder, below, names in os.walk(ROOT):
            below[:] = [b for b in below if b not in (".git", "build", "install", "node_modules", "__pycache__")]
            paths += [os.path.relpath(os.path.join(folder, name), ROOT) for name in names]
    files = {}
    for path in paths:
        full = os.path.join(ROOT, path)
        if os.path.isfile(full) and not os.path.islink(full):
            with open(full, "rb") as file:
                files[path] = file.read()
    return files


def self_test():
    """A clean small tree passes; each violation put into it is found, and nothing else."""
    spdx = "/* SPDX-License-Identifier: Apache-2.0 */\n"
    clean = {f"{folder.split('/')[0]}/README.md": "what lives here\n" for folder in FOLDERS}
    for path, lines in {
        "raft/raft.c": '#include "raft/raft.h"\n#include "base/ids.h"\n#include "lockstep/errors.h"\n#include <stdint.h>\n',
        "server/loop.c": '#include "server/node.h"\n#include <uv.h>\n#include <pthread.h>\n#include "storage/disk.h"\n',
        "server/node.c": '#include "transport/transport.h"\n#include <string.h>\n',
        "storage/kv.c": '#include "proto/block.h"\n#include <lmdb.h>\n#include <sys/uio.h>\n',
        "include/lockstep/machine.h": '#include "lockstep/errors.h"\n#include <stdint.h>\n',
        "statemachine/machines/kv.c": '#include "lockstep/machine.h"\n#include <string.h>\n',
        "statemachine/plugin.c": "#include <dlfcn.h>\n",
        "examples/own/own.c": "#include <lockstep/machine.h>\n",
        "tests/unit/raft/test_log.c": '#include "raft/log.h"\n#include <check.h>\n',
    }.items():
        clean[path] = spdx + lines
    violations = [
        ("raft/a.c", '#include "storage/ring.h"', "raft/ may not include"),
        ("raft/a.c", '#  include "server/node.h"', "raft/ may not include"),
        ("raft/a.c", "#include <time.h>", "reaches outside"),
        ("raft/a.c", "#include <stdlib.h>", "reaches outside"),
        ("base/a.c", '#include "raft/raft.h"', "base/ may not include"),
        ("storage/a.c", '#include "proto/frame.h"', "storage/ may not include"),
        ("storage/a.c", '#include "ring.h"', "not written from the root"),
        ("transport/a.c", '#include "storage/journal.h"', "transport/ may not include"),
        ("transport/a.c", '#include "raft/raft.h"', "transport/ may not include"),
        ("statemachine/a.c", '#include "server/node.h"', "statemachine/ may not include"),
        ("statemachine/machines/a.c", '#include "base/assert.h"', "machines/ may not include"),
        ("statemachine/machines/a.c", "#include <pthread.h>", "a machine is deterministic"),
        ("include/lockstep/a.h", '#include "base/ids.h"', "may not include"),
        ("client/a.c", '#include "server/node.h"', "client/ may not include"),
        ("client/a.c", "#include <uv.h>", "<uv.h> lives in"),
        ("cli/a.c", "#include <uv.h>", "<uv.h> lives in"),
        ("server/a.c", "#include <nghttp2/nghttp2.h>", "lives in proto/"),
        ("server/a.c", "#include <lmdb.h>", "lives in storage/"),
        ("server/a.c", '#include "client/client.h"', "server/ may not include"),
        ("server/node_a.c", "#include <uv.h>", "run by the simulator too"),
        ("server/node.h", "#include <pthread.h>", "run by the simulator too"),
        ("statemachine/host.c", "#include <dlfcn.h>", "lives in statemachine/plugin.c"),
        ("proto/a.c", "#include <check.h>", "lives in tests/"),
        ("proto/a.c", "#include <zlib.h>", "a library without a home"),
        ("examples/a/a.c", '#include "base/ids.h"', "examples/ may not include"),
        ("tests/unit/a.c", '#include "unit/b.h"', "not written from the root"),
        ("elsewhere/a.c", "#include <stdint.h>", "lies in no folder of the table"),
        ("base/a.c", "int a; /* TO" + "DO */", "work left for later"),
        ("base/README.md", "see /ho" + "me/me/x", "a path of one machine"),
        ("base/README.md", "see style.m" + "d", "not in this tree"),
        ("base/README.md", "see scenarios.m" + "d", "not in this tree"),
        ("base/README.md", "see tests/style.m" + "d", "not in this tree"),
        ("base/a.c", "int a; ", "blanks at its end"),
        ("base/a.c", "int a;\r", "CR LF"),
        ("base/a.c", "\tint a;", "a tab"),
        ("base/a.c", "\n" * LINES_MAX, "lines, more than"),
    ]
    clean["tests/README.md"] += "see tests/scenarios.md\n"  # the one of these names that is in the tree
    assert check(encoded(clean)) == [], check(encoded(clean))
    for path, line, expected in violations:
        found = check(encoded({**clean, path: spdx + line + "\n"}))
        assert found and all(expected in f for f in found), f"{path}: {line!r}: {found}"
    others = [
        ({**clean, "base/a.c": "int a;\n"}, "no licence line"),
        ({**clean, "base/a.md": "no end"}, "the last line has no end"),
        ({path: text for path, text in clean.items() if path != "raft/README.md"}, "raft/README.md:1: is missing"),
    ]
    for files, expected in others:
        found = check(encoded(files))
        assert len(found) == 1 and expected in found[0], found
    assert "not UTF-8" in check({**encoded(clean), "base/a.bin": b"\xff\xfe"})[0]
    assert "NUL" in check({**encoded(clean), "base/a.bin": b"a\0"})[0]
    return len(violations) + len(others) + 2


def encoded(files):
    return {path: text.encode() for path, text in files.items()}


def main():
    bites = self_test()
    files = read_tree()
    found = check(files)
    for violation in found:
        print(violation)
    print(f"include table: {len(files)} files, {len(found)} violations; {bites} planted ones were found")
    return 1 if found else 0


sys.exit(main())

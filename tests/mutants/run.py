#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Small deliberate bugs, and what finds each.

  run.py              every mutant: apply to a copy of the tree, build, look for it; exit 1 if one survives
  run.py NAME...      these
  run.py --few        the five that ./dev test runs, and a change that is no bug: the run with it has to fail
  run.py --check      only whether every one still applies to the tree as it is
  run.py --by LIST    look with these, in this order, instead of what the patch names
  run.py --seeds N    so many seeds at most (60)
  run.py --transcripts   which of tests/scenario differ under each mutant of raft/; 1 if one differs under none
  run.py --record     write what was found into the table of README.md; with --by sim, into its column of seeds

First the tree as it is goes through every finder that will be asked: one that finds something there says nothing.

A mutant is a patch, NAME.patch, with three lines before it: `What:` it does wrong, `Rule:` it breaks, `By:` who finds it
(a name or more of FINDERS, the quickest first; explore:NAME is one of its bounds,
unit:PROGRAM a unit test, transcript:NAME one of tests/scenario). The copy and its build stay in build/mutants.
"""
import argparse
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
README = HERE / "README.md"
HARMLESS = HERE / "harmless" / "words.patch"
FEW = ["grant-before-disk", "ack-before-flush", "old-term-counted", "commit-not-capped", "configuration-late"]
NOT_COPIED = {".git", "build", "install", "node_modules", "__pycache__"}


class Finder:
    """How a mutant is looked for: what to build, and a run that says after how many seeds something was found."""

    def __init__(self, targets, find):
        self.targets = targets
        self.find = find


def run(command, seconds, environment=None):
    """(exit code, all that it said); a hang is an exit too."""
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=seconds, check=False,
                              env={**os.environ, "CK_FORK": "no", **(environment or {})})
        return done.returncode, done.stdout.decode(errors="replace")
    except subprocess.TimeoutExpired as late:
        return 124, (late.stdout or b"").decode(errors="replace")


def find_by_exploration(build, seeds, bounds):
    which = ["--run", bounds] if bounds else ["--short"]
    code, said = run([build / "tests/explore/explore", *which], 300)
    if code != 1:
        return None, said
    broken = re.findall(r"^# broken: (.*)$|assertion failed: (.*)$", said, re.M)
    path = re.search(r"^# (\S+): broken", said, re.M)
    return f"explore {path.group(1) if path else ''}: {(broken[0][0] or broken[0][1]) if broken else 'found'}", said


def find_by_ring(build, seeds, case):
    which = ["--run", case] if case else ["--short"]
    code, said = run([build / "tests/explore/ring", *which], 120)
    if code != 1:
        return None, said
    broken = re.search(r"^# broken: (.*)$", said, re.M)
    return f"ring: {broken.group(1) if broken else 'found'}", said


def find_by_simulation(build, seeds, _):
    # one job: seeds in their order, so that the first that fails is the first that there is
    code, said = run([build / "tests/sim/lockstep-sim", "--machine", build / "kv.so", "--seeds", str(seeds), "--jobs", "1"],
                     1800)
    failed = re.search(r"seed 0x([0-9a-f]+) failed", said)
    if code != 1 or failed is None:
        return None, said
    why = re.search(r"assertion failed: .*|VIOLATED in the [^:]*: (.*)|it hangs|a fault of memory", said)
    return f"sim seed {int(failed.group(1), 16)}: {(why.group(1) or why.group(0)) if why else 'found'}", said


def find_by_random_cores(build, seeds, _):
    first = 0x10AD
    code, said = run([build / "tests/unit/raft/test_raft_random"], 600, {"LOCKSTEP_SEEDS": str(5 * seeds)})
    failed = re.search(r"LOCKSTEP_SEED=0x([0-9a-f]+)", said)
    if code == 0 or failed is None:
        return None, said
    why = re.search(r"assertion failed: .*", said)
    return f"raft_random seed {int(failed.group(1), 16) - first + 1}: {why.group(0) if why else 'found'}", said


def find_by_unit(build, seeds, program):
    code, said = run([build / program], 300)
    if code == 0:
        return None, said
    why = re.search(r"assertion failed: .*|:[FE]:.*", said)
    return f"{program.split('/')[-1]}: {why.group(0).strip(': ') if why else 'hangs' if code == 124 else 'found'}", said


def find_by_transcript(build, seeds, name):
    code, said = run([build / "tests/scenario/scenario", HERE.parent / "scenario" / f"{name}.txt"], 60)
    if code == 0:
        return None, said
    why = re.search(r"assertion failed: .*|:\d+: +now: .*", said)
    return f"transcript {name}: {why.group(0).strip(': ') if why else 'differs'}", said


def find_by_power_cuts(build, seeds, _):
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="lockstep-mutants-", dir=memory) as folder:  # what is found is left there
        environment = {"LD_PRELOAD": str(build / "tests/powercut/recorder.so"), "LOCKSTEP_POWERCUT_DIR": folder}
        code, said = run([build / "tests/powercut/powercut", "--images", "3000", "--every", "5"], 900, environment)
    failed = re.search(r"--replay (\S+)", said)
    if code != 1 or failed is None:
        return None, said
    return f"powercut: image {failed.group(1)}", said


FINDERS = {
    "powercut": Finder(["tests/powercut/powercut", "tests/powercut/recorder.so"], find_by_power_cuts),
    "transcript": Finder(["tests/scenario/scenario"], find_by_transcript),
    "unit": Finder([], find_by_unit),
    "explore": Finder(["tests/explore/explore"], find_by_exploration),
    "ring": Finder(["tests/explore/ring"], find_by_ring),
    "sim": Finder(["tests/sim/lockstep-sim", "kv.so"], find_by_simulation),
    "raft_random": Finder(["tests/unit/raft/test_raft_random"], find_by_random_cores),
}


class Mutant:
    def __init__(self, path):
        self.path = path
        self.name = path.stem
        text = path.read_text(encoding="utf-8")
        self.fields = dict(re.findall(r"^(What|Rule|By): (.*)$", text, re.M))
        self.by = self.fields.get("By", "").replace(",", " ").split()
        self.files = re.findall(r"^\+\+\+ b/(.*)$", text, re.M)

    def faults(self):
        """What is wrong with the patch itself."""
        for field in ("What", "Rule", "By"):
            if field not in self.fields:
                yield f"{self.path.name}: no line `{field}:`"
        for finder in self.by:
            if finder.split(":")[0] not in FINDERS:
                yield f"{self.path.name}: there is no finder {finder}"

    def apply(self, tree, *options):
        # a copy in build/ lies inside a work tree, and git would leave out what that ignores
        environment = {**os.environ, "GIT_CEILING_DIRECTORIES": str(pathlib.Path(tree).parent)}
        done = subprocess.run(["git", "apply", *options, str(self.path)], cwd=tree, env=environment, check=False,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        return done.returncode == 0, done.stdout.decode(errors="replace")


def read_mutants(names):
    mutants = [Mutant(path) for path in sorted(HERE.glob("*.patch"))]
    unknown = set(names) - {mutant.name for mutant in mutants}
    if unknown:
        sys.exit(f"mutants: there is no {', '.join(sorted(unknown))}")
    return [mutant for mutant in mutants if not names or mutant.name in names]


class Table:
    """The rows of README.md: what was found, when last recorded."""

    HEAD = ["mutant", "what it does wrong", "rule", "found by", "of the simulator's seeds the first", "at"]
    ROW = re.compile(r"^\| `([a-z0-9-]+)` \|(.*)\|$", re.M)

    def __init__(self):
        self.text = README.read_text(encoding="utf-8")
        self.rows = {name: [cell.strip() for cell in re.split(r"(?<!\\)\|", cells)] for name, cells in self.ROW.findall(self.text)}

    def note(self, mutant, column, found, at):
        row = self.rows.setdefault(mutant.name, ["", "", "", "", ""])
        row[0], row[1] = mutant.fields["What"], mutant.fields["Rule"]
        row[self.HEAD.index(column) - 1] = found if len(found) < 100 else found[:97] + "..."
        row[4] = at

    def write(self, names):
        lines = ["| " + " | ".join(self.HEAD) + " |", "|---" * len(self.HEAD) + "|"]
        for name in sorted(set(self.rows) & names):
            cells = [re.sub(r"(?<!\\)\|", r"\|", cell) for cell in self.rows[name]]
            lines.append(f"| `{name}` | " + " | ".join(cells) + " |")
        before, _, behind = self.text.partition("| " + self.HEAD[0] + " |")
        rest = "".join(line for line in behind.splitlines(True)[1:] if not line.startswith("|"))
        README.write_text(before + "\n".join(lines) + "\n" + rest, encoding="utf-8")


def check(mutants):
    wrong = 0
    for mutant in mutants:
        faults = list(mutant.faults())
        applies, said = mutant.apply(ROOT, "--check")
        if not applies:
            faults.append(f"{mutant.path.name}: does not apply any more:\n{said}")
        for fault in faults:
            print(fault)
        wrong += bool(faults)
    print(f"mutants: {len(mutants)}, {wrong} wrong")
    return 1 if wrong or not mutants else 0


def copy_tree(tree):
    """The tree as it is, in build/mutants; files that did not change keep their times, so that little is built."""
    kept = set()
    for folder, below, names in os.walk(ROOT):
        below[:] = [name for name in below if name not in NOT_COPIED]
        to = tree / os.path.relpath(folder, ROOT)
        to.mkdir(parents=True, exist_ok=True)
        for name in names:
            source, copy = pathlib.Path(folder, name), to / name
            kept.add(copy)
            if not copy.exists() or copy.read_bytes() != source.read_bytes():
                shutil.copyfile(source, copy)
                shutil.copymode(source, copy)
    for folder, _, names in os.walk(tree):
        for name in names:
            if pathlib.Path(folder, name) not in kept:
                pathlib.Path(folder, name).unlink()


def build_targets(build, targets):
    return run(["ninja", "-C", build, *targets], 1800)


def look_for(mutant, finders, tree, build, seeds):
    """(what found it, or None; why not)"""
    applies, said = mutant.apply(tree)
    if not applies:
        return None, f"does not apply: {said}"
    try:
        told = ""
        for finder in finders:
            name, _, part = finder.partition(":")
            code, said = build_targets(build, FINDERS[name].targets or [part])
            if code != 0:
                return None, "does not build:\n" + said[-3000:]
            found, said = FINDERS[name].find(build, seeds, part)
            if found:
                return found, said
            told += f"--- {name}\n{said[-600:]}"
        return None, told
    finally:
        mutant.apply(tree, "--reverse")


def commit():
    """The tree's, marked where it has changed since."""
    said = subprocess.run(["git", "describe", "--always", "--dirty=+"], cwd=ROOT, check=False, stdout=subprocess.PIPE)
    return said.stdout.decode().strip() or "?"


def innocent(mutants, by, build, seeds):
    """Whether the tree as it is passes what will judge the mutants; else all of them would be found."""
    for finder in sorted({finder for mutant in mutants for finder in by or mutant.by}):
        name, _, part = finder.partition(":")
        code, said = build_targets(build, FINDERS[name].targets or [part])
        if code != 0:
            print("does not build:\n" + said[-3000:])
            return False
        found, said = FINDERS[name].find(build, seeds, part)
        if found:
            print(f"{finder} finds something where no mutant is: {found}\n{said[-3000:]}")
            return False
    return True


def prepare(tree, build):
    """The copy, ready to be built. False: it is not."""
    copy_tree(tree)
    if (build / "build.ninja").exists():
        return True
    code, said = run(["meson", "setup", "-Dtests=enabled", build, tree], 300)
    if code != 0:
        print(said)
    return code == 0


def hunt(mutants, by, seeds, record):
    begun = time.monotonic()
    tree, build = ROOT / "build/mutants/tree", ROOT / "build/mutants/build"
    if not prepare(tree, build):
        return 2
    if not innocent(mutants, by, build, seeds):
        return 2
    survivors = []
    table, at = Table(), commit()
    for mutant in mutants:
        begin = time.monotonic()
        found, said = look_for(mutant, by or mutant.by, tree, build, seeds)
        print(f"{mutant.name:30} {time.monotonic() - begin:6.1f} s  {found or 'SURVIVES'}", flush=True)
        if by == ["sim"]:
            seed = re.match(r"sim seed (\d+)", found or "")
            table.note(mutant, Table.HEAD[4], seed.group(1) if seed else f"none of {seeds}", at)
        elif found:
            table.note(mutant, Table.HEAD[3], found, at)
        if not found:
            print(said)
            survivors.append(mutant.name)
    if record:
        table.write({mutant.name for mutant in read_mutants([])})
    print(f"mutants: {len(mutants)}, {len(mutants) - len(survivors)} found in {time.monotonic() - begun:.0f} s" +
          (f"; these survive: {' '.join(survivors)}" if survivors else ""))
    return 1 if survivors else 0


def transcripts(mutants):
    """A transcript that no bug changes shows nothing."""
    tree, build = ROOT / "build/mutants/tree", ROOT / "build/mutants/build"
    names = sorted(path.stem for path in (HERE.parent / "scenario").glob("*.txt"))
    shows = {name: [] for name in names}
    mutants = [mutant for mutant in mutants if all(file.startswith("raft/") for file in mutant.files)]
    if not prepare(tree, build) or not innocent(mutants, ["transcript:" + name for name in names], build, 0):
        return 2
    for mutant in mutants:
        mutant.apply(tree)
        code, _ = build_targets(build, FINDERS["transcript"].targets)
        for name in names:
            if code == 0 and find_by_transcript(build, 0, name)[0]:
                shows[name].append(mutant.name)
        mutant.apply(tree, "--reverse")
    for name in names:
        print(f"{name:22} {len(shows[name]):3}  {' '.join(shows[name])}")
    unseen = [mutant.name for mutant in mutants if not any(mutant.name in found for found in shows.values())]
    print(f"transcripts: {len(names)}, mutants: {len(mutants)}, {len(unseen)} change none: {' '.join(unseen)}")
    return 0 if all(shows.values()) else 1


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--few", action="store_true")
    parser.add_argument("--by", type=lambda text: text.split(","), default=[])
    parser.add_argument("--seeds", type=int, default=60)
    parser.add_argument("--record", action="store_true")
    parser.add_argument("--transcripts", action="store_true")
    options = parser.parse_args()
    mutants = read_mutants(FEW if options.few else options.names)
    if options.check:
        return check(mutants + [Mutant(HARMLESS)])
    if options.transcripts:
        return transcripts(mutants)
    result = hunt(mutants, options.by, options.seeds, options.record)
    if options.few and result == 0:
        print("a change that is no bug, which nobody may find:")
        result = 0 if hunt([Mutant(HARMLESS)], [], options.seeds, False) == 1 else 1
    return result


sys.exit(main())

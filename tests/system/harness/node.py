# SPDX-License-Identifier: Apache-2.0
"""The client of examples/node, with what it needs."""
import fcntl
import shutil
import subprocess
import time

from harness import process, settings


def example():
    """Its directory: a copy beside the build, so that the tree stays as it is; installed once for all tests and runs."""
    root = settings.BUILD / "tests" / "system" / "node"
    root.mkdir(parents=True, exist_ok=True)
    tree = root / "examples" / "node"
    with open(root / "lock", "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # tests run beside each other
        shutil.copytree(settings.SOURCE / "examples" / "node", tree, dirs_exist_ok=True,
                        ignore=shutil.ignore_patterns("node_modules"))
        shutil.copytree(settings.SOURCE / "proto", root / "proto", dirs_exist_ok=True)
        if not (tree / "node_modules" / ".package-lock.json").exists():
            install(tree)
    return tree


def install(tree):
    """The one thing in all tests that needs a network beyond loopback: npm's registry, once a build folder."""
    for last in (False, True):
        try:
            code, _, err = process.run(["npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts"], seconds=120,
                                       directory=tree)
        except subprocess.TimeoutExpired as late:
            code, err = 1, str(late)
        if code == 0:
            return
        if last:
            raise AssertionError(f"npm's registry cannot be reached, or gives not what package-lock.json names: `npm ci` in "
                                 f"{tree}: {err}")
        time.sleep(5)


if __name__ == "__main__":  # before the tests, so that none of them waits for the network
    example()

# SPDX-License-Identifier: Apache-2.0
"""The client of examples/node, with what it needs."""
import fcntl
import shutil

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
            code, _, err = process.run(["npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts"], seconds=120,
                                       directory=tree)
            if code != 0:
                raise RuntimeError(f"npm ci: {err}")
    return tree

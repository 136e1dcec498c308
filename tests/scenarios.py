#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Every test that tests/scenarios.md names exists in the file that it names, and no number is left out."""
import pathlib
import re
import sys

tests = pathlib.Path(__file__).resolve().parent
wrong = 0
rows = 0
missing = {f"T{number}" for number in range(1, 65)}
for number, line in enumerate((tests.parent / "tests/scenarios.md").read_text(encoding="utf-8").splitlines(), 1):
    cells = [cell.strip() for cell in line.split("|")[1:-1]]
    if len(cells) != 4 or not re.fullmatch(r"T\d+", cells[0]):
        continue
    rows += 1
    missing.discard(cells[0])
    test, place = cells[2], cells[3]
    if test == "-":
        readme = place.removeprefix("cannot happen: ")
        if f"{cells[0]}:" not in (tests.parent / readme).read_text(encoding="utf-8").replace(",", ":"):
            print(f"tests/scenarios.md:{number}: {readme} does not say why {cells[0]} cannot happen")
            wrong += 1
        continue
    path = tests / place
    if not path.exists():
        print(f"tests/scenarios.md:{number}: there is no tests/{place}")
        wrong += 1
    elif path.suffix == ".txt":
        if test != f"scenario_{path.stem}":
            print(f"tests/scenarios.md:{number}: the transcript's test is scenario_{path.stem}")
            wrong += 1
    elif not re.search(rf"\b{test}\b", path.read_text(encoding="utf-8")):
        print(f"tests/scenarios.md:{number}: tests/{place} has no {test}")
        wrong += 1
for scenario in sorted(missing, key=lambda name: int(name[1:])):
    print(f"tests/scenarios.md: {scenario} has no row")
    wrong += 1
print(f"scenarios: {rows} rows, {wrong} wrong")
sys.exit(1 if wrong or rows == 0 else 0)

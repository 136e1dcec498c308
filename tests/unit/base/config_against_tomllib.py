# SPDX-License-Identifier: Apache-2.0
"""The config reader against Python's tomllib, over written and generated samples.

For every sample: what we accept, tomllib accepts with the same values in the same order; what tomllib rejects, we
reject; what only we reject is named as not supported or over a limit. Argument: the program config_print.
"""
import json
import os
import random
import subprocess
import sys
import tomllib

GOOD = [
    "", "\n", "# only a comment", "a = 1", "a=1 # c\n", "\ta\t=\t1\t\r\n", "a = 1\r\nb = 2\r\n",
    'cluster = "demo"\n[node.n1]\nclient = "127.0.0.1:7401"\n[node.n2]\nclient = "x"\n[raft]\nheartbeat = "60ms"\n',
    "[a.b.c]\nx = 1\n[a]\ny = 2\n[a.b]\nz = 3\n", '["quoted name"]\n"a b" = 1\n\'c.d\' = 2\n', "[ a . b ]\n",
    '"" = 1\n', "1 = 2\n-_ = 3\n", r'a = "\b\t\n\f\r\"\\\u00e9\U0001F600"', "a = 'no \\escape \"x\"'", 'a = "größer €"',
    "a = []", "a = [1, 2, 3,]", 'a = [ "x", [1, [true]], -7, # c\n\n false ]\nb = 1', "a = [\n]\n",
    "a = 0\nb = -0\nc = +0\nd = 1_000_000\ne = -9223372036854775808\nf = 9223372036854775807", "a = true\nb = false",
    'a = "tab\there"', "a = 'x' # \té comment", "[a]\n[b]\n[a.c]\n", "[" + ".".join("abcdefghijklmnop") + "]",
    "a = " + "[" * 16 + "]" * 16, "a = \"\U0010ffff\ue000\ud7ff\"".encode("utf-8", "surrogatepass").decode("utf-8", "replace"),
]
BAD = [
    "a", "a =", "= 1", "a = 1 b = 2", "a = 1\na = 2", "[a]\n[a]", "[a]\nb = 1\n[a.b]", "a = 1\n[a]", "[a.b]\n[a]\nb = 1",
    "[a", "[a]]", "[]", "[a.]", "[.a]", "[a..b]", "[a] b = 1", 'a = "x', "a = 'x", 'a = "x\ny"', r'a = "\q"', r'a = "\u12"',
    r'a = "\ud800"', r'a = "\U00110000"', r'a = "\x41"', "a = 01", "a = 1__0", "a = _1", "a = 1_", "a = +", "a = --1",
    "a = True", "a = truex", "a = yes", "a = [1 2]", "a = [1, 2", "a = [,]", "a = [1,,2]", "a b = 1", "a : 1", "a = 1 junk",
    "a = \"\x01\"", "# \x00", "a = '\x7f'", "a = 1\r", "\r", b"a = \"\xff\"", b"a = \"\xc0\x80\"", b"a = \"\xed\xa0\x80\"",
    b"a = \"\xf4\x90\x80\x80\"", b"a = \"\xe2\x82\"", b"\xef\xbb\xbfa = 1", "a = \"x\\\ny\"", "a = 0x", "a = 1.",
    "'a\nb' = 1", "é = 1", "a = [1]\n[a.b]", "a\n= 1", "a =\n1",
]
NOT_SUPPORTED = [
    "a.b = 1", "a = {x = 1}", "[[a]]\nx = 1", "a = 1.5", "a = 1e3", "a = inf", "a = -nan", "a = 0x1f", "a = 0b1", "a = 0o7",
    "a = 1979-05-27", "a = 1979-05-27T07:32:00Z", "a = 07:32:00", 'a = """x"""', "a = '''x'''", r'a = "\u0000"',
    "a = 9223372036854775808", "a = -9223372036854775809", "a = " + "[" * 17 + "]" * 17,
    "[" + ".".join("abcdefghijklmnopq") + "]", "a = [" + "1," * 16384 + "]", "#" * (1 << 20) + "#",
]
# The place and the two halves of the message, word for word: people read them.
MESSAGES = [
    ("a = 1\nb = ", "sample:2:5: a value is missing; write one behind the ="),
    ("ä = 1", "sample:1:1: a name is missing; write letters, digits, - and _, or a \"quoted name\""),
    ("'ä' = 1 x", "sample:1:9: something stands behind the value; begin a new line, or write # before a comment"),
    ("[r]\nx = 1\ny = 2\nx = 3", "sample:4:1: 'x' stands at line 2 already; keep one of the two"),
    ("[r]\n[s]\n [r]", "sample:3:2: the table [r] stands at line 1 already; put its keys together"),
    (r'"a\nb" 1', "sample:1:8: no = stands behind the key 'a?b'; write key = value"),
    ("a.b = 1", "sample:1:2: dotted keys are not supported; write the key under a [table] header"),
    ("a = [1,\n2,\n", "sample:1:5: an array without its end; write ] behind the last element"),
    ('a = "ä', 'sample:1:5: a string without its closing quote; write " at its end'),
    (b"\n\xff", "sample:2:1: bytes that are not UTF-8; save the file as UTF-8"),
    ("a = 300ms", "sample:1:5: this is not a value; write a \"string\", a decimal integer, true, false or an [array] "
                  "(floats, dates, inline tables and other number systems are not supported)"),
]


def generate(rng):
    """A text that is nearly right: lines that are mostly good, then some bytes changed."""
    names = ["a", "b", "c", "x-1", '"q r"', "'l'", '""', "node", "1"]

    def value(depth=0):
        kind = rng.randrange(10 if depth < 3 else 8)
        if kind < 3:
            return str(rng.choice([0, 1, -1, 42, 1 << 62, "1_0", "+5", "00", "1.5", "0x1", "1e9"][: 7 + 4 * (kind == 0)]))
        if kind < 6:
            return rng.choice(['"x"', "'y'", '"\\n\\u00e9"', '""', '"a#b"', "'\\'", '"\\""'])
        if kind < 8:
            return rng.choice(["true", "false"])
        blank = ["", " ", "\n", " # c\n"]
        parts = [rng.choice(blank) + value(depth + 1) + rng.choice(blank) for _ in range(rng.randrange(4))]
        return "[" + ",".join(parts) + rng.choice(["", ","] if parts else [""]) + rng.choice(blank) + "]"

    lines = []
    for _ in range(rng.randrange(1, 9)):
        kind = rng.randrange(10)
        if kind < 3:
            lines.append("[" + ".".join(rng.choice(names) for _ in range(rng.randrange(1, 4))) + "]")
        elif kind < 9:
            lines.append(rng.choice(names) + rng.choice(["=", " = "]) + value())
        else:
            lines.append(rng.choice(["", "# comment", "  "]))
    data = bytearray(rng.choice(["\n", "\r\n"]).join(lines).encode())
    if rng.random() < 0.6:
        for _ in range(rng.randrange(1, 4)):
            at = rng.randrange(len(data) + 1)
            kind = rng.randrange(3)
            if kind == 0:
                data[at:at + 1] = b""
            elif kind == 1:
                data[at:at] = rng.choice([b"[", b"]", b"=", b".", b'"', b"'", b"\\", b"#", b"\n", b"\r", b",", b"_", b"0",
                                          b"-", b"\xc3", b"\x7f", b"\t", b" ", b"{", b"}", b"\xc3\xa9"])
            else:
                data[at:at + 1] = bytes([rng.randrange(256)])
    return bytes(data)


def judge(sample):
    """tomllib's tree, or its error."""
    try:
        return tomllib.loads(sample.decode("utf-8")), None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        return None, error
    except RecursionError as error:
        return None, error


def main():
    seed = int(os.environ.get("LOCKSTEP_SEED", "0x7031"), 0)
    rounds = 100000 if "LOCKSTEP_FULL" in os.environ else 1000 if "LOCKSTEP_SHORT" in os.environ else 10000
    print(f"LOCKSTEP_SEED={seed:#x}")
    rng = random.Random(seed)
    as_bytes = [s if isinstance(s, bytes) else s.encode() for s in
                GOOD + BAD + NOT_SUPPORTED + [text for text, _ in MESSAGES]]
    first_message = len(GOOD) + len(BAD) + len(NOT_SUPPORTED)
    samples = as_bytes + [generate(rng) for _ in range(rounds)]
    stdin = b"".join(b"%d\n%s" % (len(s), s) for s in samples)
    out = subprocess.run([sys.argv[1]], input=stdin, stdout=subprocess.PIPE, check=True).stdout.splitlines()
    assert len(out) == len(samples), f"{len(samples)} samples, {len(out)} answers"

    accepted = 0
    for number, (sample, line) in enumerate(zip(samples, out)):
        answer = json.loads(line)
        tree, error = judge(sample)
        where = f"sample {number} {sample[:300]!r}: we say {answer}, tomllib says {tree if error is None else error!r}"
        if "tree" in answer:
            assert error is None, where
            assert json.dumps(answer["tree"]) == json.dumps(tree), where  # dumps keeps the order
            accepted += 1
        elif error is None:
            assert "not supported" in answer["error"] or "limit" in answer["error"], where
        if number < len(GOOD):
            assert "tree" in answer, where
        elif number < len(GOOD) + len(BAD):
            assert "error" in answer and error is not None, where
        elif number < first_message:
            assert "error" in answer and error is None, where
        elif number < len(as_bytes):
            assert answer.get("error") == MESSAGES[number - first_message][1], where
    print(f"{len(samples)} samples, {accepted} accepted by both")
    assert accepted > rounds // 10, "the generator no longer makes good samples"


main()

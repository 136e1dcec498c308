# SPDX-License-Identifier: Apache-2.0
"""What clients saw, and whether the nodes' logs bear it out.

Every command's payload is unique, so a command in a log is known by its bytes. Given the logs of stopped nodes (LOG
below, read by dump_log) and the index up to which every node had applied, judge() holds that

  V1  all logs are the same, command by command, up to that index; positions have no gap and no repetition
  V2  every acknowledged command stands there once, at the index and position that its answer named
  V3  a command of unknown outcome stands there at most once, a surely not appended one never
  V4  nothing stands there that no client sent
  V5  every reply is the one that the machine gives when it is run over the log (kv, restated in Machine)
  V6  a linearizable read shows the state of an index that holds every write acknowledged before the read began, and
      that no earlier finished read has passed
"""
import struct

from harness.api import APPLIED, NOT_APPENDED, UNKNOWN


class Command:
    """One command as a client saw it. Times are time.monotonic()."""
    __slots__ = ("payload", "worker", "began", "ended", "outcome", "index", "position", "code", "reply", "why")

    def __init__(self, payload, began, worker=None):
        self.payload = payload
        self.worker = worker  # of the load, whose it is
        self.began = began
        self.ended = None
        self.outcome = UNKNOWN  # until an answer says more
        self.index = self.position = self.code = 0
        self.reply = b""
        self.why = ""

    def applied(self, response, now):
        self.outcome, self.ended = APPLIED, now
        self.index, self.position = response.index, response.position
        self.code, self.reply = response.code, response.reply

    def failed(self, outcome, why, now):
        self.outcome, self.ended, self.why = outcome, now, why


class Read:
    """One linearizable query for the register REGISTER."""
    __slots__ = ("began", "ended", "index", "code", "reply")

    def __init__(self, began, ended, response):
        self.began, self.ended = began, ended
        self.index, self.code, self.reply = response.index, response.code, response.reply


REGISTER = b"register"
NO_SUCH_KEY = 1  # kv's code for a query of a key that nobody has put


class Logged:
    __slots__ = ("index", "position", "payload")

    def __init__(self, index, position, payload):
        self.index, self.position, self.payload = index, position, payload


RECORD = struct.Struct("<QQI4x")  # index, position, bytes of the payload that follows


def parse_dump(data):
    """dump_log's output: RECORD and payload, command by command."""
    at, log = 0, []
    while at < len(data):
        index, position, count = RECORD.unpack_from(data, at)
        at += RECORD.size
        if at + count > len(data):
            raise ValueError("the dump ends inside a command")
        log.append(Logged(index, position, data[at:at + count]))
        at += count
    return log


class Machine:
    """What of kv the load uses, restated: put, append, incr on bare words, nothing refused."""

    def __init__(self):
        self.values = {}

    def apply(self, payload):
        verb, key, value = payload.split(b" ", 2)
        if verb == b"put":
            self.values[key] = value
            return b""
        if verb == b"append":
            self.values[key] = self.values.get(key, b"") + value
            return b"%d" % len(self.values[key])
        if verb == b"incr":
            self.values[key] = b"%d" % (int(self.values.get(key, b"0")) + int(value))
            return self.values[key]
        raise ValueError(payload)


class Violation(AssertionError):
    pass


def shown(payload):
    return repr(payload[:60]) + (f"... ({len(payload)} bytes)" if len(payload) > 60 else "")


def judge(commands, reads, logs, applied_index):
    """logs: {node: [Logged]}. Raises Violation, naming rule, node and command. Returns a line for people."""
    logs = {name: [c for c in log if c.index <= applied_index] for name, log in logs.items()}
    reference = max(logs, key=lambda name: len(logs[name]))
    log = logs[reference]
    _same_logs(logs, reference)
    by_payload = {}
    for logged in log:
        if logged.payload in by_payload:
            raise Violation(f"V2, V3: {shown(logged.payload)} was applied twice: positions "
                            f"{by_payload[logged.payload].position} and {logged.position}")
        by_payload[logged.payload] = logged
    counts = _commands(commands, by_payload)
    sent = {command.payload for command in commands}
    for logged in log:
        if logged.payload not in sent:
            raise Violation(f"V4: position {logged.position} holds what nobody sent: {shown(logged.payload)}")
    _replies(commands, log)
    _reads(commands, reads, log)
    return (f"{counts[APPLIED]} acknowledged, {counts[UNKNOWN]} unknown, {counts[NOT_APPENDED]} not appended, "
            f"{len(reads)} reads; {len(log)} in each of {len(logs)} logs")


def _same_logs(logs, reference):
    log = logs[reference]
    for at, logged in enumerate(log):
        if logged.position != at + 1:
            raise Violation(f"V1: {reference}: position {logged.position} stands where {at + 1} belongs")
        if at > 0 and logged.index < log[at - 1].index:
            raise Violation(f"V1: {reference}: index falls at position {logged.position}")
    for name, other in logs.items():
        for mine, theirs in zip(log, other):
            if (mine.index, mine.position, mine.payload) != (theirs.index, theirs.position, theirs.payload):
                raise Violation(f"V1: {reference} and {name} differ: index {mine.index}, position {mine.position}, "
                                f"{shown(mine.payload)} against index {theirs.index}, position {theirs.position}, "
                                f"{shown(theirs.payload)}")
        if len(other) != len(log):
            raise Violation(f"V1: {name} holds {len(other)} commands, {reference} holds {len(log)}; the first that "
                            f"is missing: position {log[len(other)].position}, {shown(log[len(other)].payload)}")


def _commands(commands, by_payload):
    counts = {APPLIED: 0, NOT_APPENDED: 0, UNKNOWN: 0}
    for command in commands:
        counts[command.outcome] += 1
        logged = by_payload.get(command.payload)
        if command.outcome == APPLIED:
            if logged is None:
                raise Violation(f"V2: acknowledged and lost: {shown(command.payload)}, index {command.index}, "
                                f"position {command.position}")
            if (logged.index, logged.position) != (command.index, command.position):
                raise Violation(f"V2: {shown(command.payload)} was acknowledged at index {command.index}, position "
                                f"{command.position}, and stands at {logged.index}, {logged.position}")
        elif command.outcome == NOT_APPENDED and logged is not None:
            raise Violation(f"V3: said to be not appended, and stands at position {logged.position}: "
                            f"{shown(command.payload)}: {command.why}")
    return counts


def _replies(commands, log):
    answered = {command.position: command for command in commands if command.outcome == APPLIED}
    machine = Machine()
    for logged in log:
        reply = machine.apply(logged.payload)
        command = answered.get(logged.position)
        if command is not None and (command.code, command.reply) != (0, reply):
            raise Violation(f"V5: position {logged.position}, {shown(logged.payload)}: the answer was "
                            f"{command.code} {shown(command.reply)}, the log gives 0 {shown(reply)}")


def _reads(commands, reads, log):
    """Two sweeps over time. Each event is seen when it ended; a read must cover what had ended when it began."""
    writes = [(command.ended, command.index) for command in commands
              if command.outcome == APPLIED and command.payload.startswith(b"put " + REGISTER + b" ")]
    known = sorted(writes + [(read.ended, read.index) for read in reads])
    values, indexes = [None], [0]
    for logged in log:
        verb, key, value = logged.payload.split(b" ", 2)
        if verb == b"put" and key == REGISTER:
            values.append(value)
            indexes.append(logged.index)
    newest = at = value_at = 0
    by_began = sorted(reads, key=lambda read: read.began)
    state = {}
    for read in sorted(reads, key=lambda read: read.index):
        while value_at + 1 < len(indexes) and indexes[value_at + 1] <= read.index:
            value_at += 1
        state[id(read)] = values[value_at]
    for read in by_began:
        while at < len(known) and known[at][0] < read.began:
            newest = max(newest, known[at][1])
            at += 1
        if read.index < newest:
            raise Violation(f"V6: a read that began at {read.began:.6f} shows index {read.index}; index {newest} was "
                            f"known before")
        expected = state[id(read)]
        if expected is None and read.code != NO_SUCH_KEY:
            raise Violation(f"V6: a read at index {read.index} shows {shown(read.reply)} before any write")
        if expected is not None and (read.code, read.reply) != (0, expected):
            raise Violation(f"V6: a read at index {read.index} shows {read.code} {shown(read.reply)}, the log gives "
                            f"{shown(expected)}")

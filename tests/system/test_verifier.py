# SPDX-License-Identifier: Apache-2.0
"""The verdict itself: a good history passes, and each planted fault is found and named by its rule."""
import unittest

from harness.api import NOT_APPENDED, UNKNOWN
from harness.history import RECORD, Command, Logged, Read, Violation, judge, parse_dump


class Response:
    def __init__(self, index, position=0, reply=b"", code=0):
        self.index, self.position, self.reply, self.code = index, position, reply, code


class Verifier(unittest.TestCase):
    def setUp(self):
        """Three commands acknowledged, one of unknown outcome that was applied, one surely not; two reads."""
        payloads = [b"put register 1", b"incr total 5", b"append log0 abc", b"put register 2"]
        replies = [b"", b"5", b"3", b""]
        indexes = [2, 2, 3, 4]
        self.logs = {name: [Logged(indexes[i], i + 1, payloads[i]) for i in range(4)] for name in ("n1", "n2", "n3")}
        self.commands = [Command(payload, began=float(i)) for i, payload in enumerate(payloads)]
        for i in (0, 1, 3):
            self.commands[i].applied(Response(indexes[i], i + 1, replies[i]), i + 0.5)
        self.commands[2].failed(UNKNOWN, "reset", 2.5)
        self.commands.append(Command(b"put never x", began=4.0))
        self.commands[4].failed(NOT_APPENDED, "no leader", 4.5)
        self.reads = [Read(0.6, 0.7, Response(2, reply=b"1")), Read(3.6, 3.7, Response(4, reply=b"2"))]

    def judge(self):
        return judge(self.commands, self.reads, self.logs, applied_index=4)

    def finds(self, rule):
        with self.assertRaises(Violation) as caught:
            self.judge()
        self.assertTrue(str(caught.exception).startswith(rule), str(caught.exception))

    def everywhere(self, change):
        for log in self.logs.values():
            change(log)

    def test_a_good_history_passes(self):
        self.assertIn("3 acknowledged, 1 unknown, 1 not appended, 2 reads; 4 in each of 3 logs", self.judge())

    def test_an_unknown_command_may_be_missing(self):
        def drop(log):
            del log[2]
            log[2].position = 3
        self.everywhere(drop)
        self.commands[3].position = 3
        self.assertIn("1 unknown", self.judge())

    def test_a_byte_that_differs_on_one_node_is_found(self):
        self.logs["n2"][1].payload = b"incr total 6"
        self.finds("V1")

    def test_a_node_that_lacks_the_end_is_found(self):
        del self.logs["n3"][3]
        self.finds("V1")

    def test_a_gap_in_the_positions_is_found(self):
        def shift(log):
            log[3].position = 5
        self.everywhere(shift)
        self.finds("V1")

    def test_two_commands_in_another_order_on_one_node_are_found(self):
        log = self.logs["n1"]
        log[0].payload, log[1].payload = log[1].payload, log[0].payload
        self.finds("V1")

    def test_a_lost_acknowledged_command_is_found(self):
        def lose(log):
            del log[3]
        self.everywhere(lose)
        self.finds("V2: acknowledged and lost")

    def test_a_command_at_another_position_than_answered_is_found(self):
        self.commands[1].position = 1
        self.finds("V2")

    def test_a_command_that_was_applied_twice_is_found(self):
        self.everywhere(lambda log: log.append(Logged(4, 5, b"append log0 abc")))
        self.finds("V2, V3")

    def test_a_command_said_to_be_not_appended_is_found_in_the_log(self):
        self.everywhere(lambda log: log.append(Logged(4, 5, b"put never x")))
        self.finds("V3")

    def test_a_command_that_nobody_sent_is_found(self):
        self.everywhere(lambda log: log.append(Logged(4, 5, b"put made up")))
        self.finds("V4")

    def test_a_reply_that_the_log_does_not_give_is_found(self):
        self.commands[1].reply = b"10"
        self.finds("V5")

    def test_a_stale_read_is_found(self):
        self.reads[1] = Read(3.6, 3.7, Response(3, reply=b"1"))
        self.finds("V6")

    def test_a_read_behind_an_earlier_read_is_found(self):
        self.reads = [Read(3.0, 3.1, Response(4, reply=b"2")), Read(3.2, 3.3, Response(3, reply=b"1"))]
        self.finds("V6")

    def test_a_read_of_a_value_that_its_index_does_not_have_is_found(self):
        self.reads[0].reply = b"2"
        self.finds("V6")

    def test_a_dump_is_read_back(self):
        data = RECORD.pack(7, 9, 3) + b"abc" + RECORD.pack(8, 10, 0)
        self.assertEqual([(c.index, c.position, c.payload) for c in parse_dump(data)], [(7, 9, b"abc"), (8, 10, b"")])
        with self.assertRaises(ValueError):
            parse_dump(data[:26])


if __name__ == "__main__":
    unittest.main(verbosity=2)

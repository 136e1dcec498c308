# SPDX-License-Identifier: Apache-2.0
"""grpcio as a client: what each call answers, with which status and which trailers; health, reflection, HTTP/1.1."""
import http.client
import shutil
import threading
import time

import grpc
from google.protobuf import descriptor_pb2

from harness import api, http2, process, settings
from harness.api import Client, pb
from harness.case import Case, SharedCase, main, say
from harness.cluster import STEADY, until
from health.v1 import health_pb2, health_pb2_grpc
from reflection.v1 import reflection_pb2 as reflection_v1
from reflection.v1 import reflection_pb2_grpc as reflection_v1_grpc
from reflection.v1alpha import reflection_pb2 as reflection_v1alpha
from reflection.v1alpha import reflection_pb2_grpc as reflection_v1alpha_grpc

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
SERVICE_UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN


class Conformance(SharedCase):
    """All against one cluster; a test that moves leadership leaves a leader behind."""

    def assert_fails(self, code, call, *arguments, **named):
        with self.assertRaises(grpc.RpcError) as caught:
            call(*arguments, **named)
        error = caught.exception
        self.assertEqual(error.code(), code, f"{error.code()}: {error.details()}")
        self.assertTrue(error.details(), "an error without words")
        return error

    def assert_not_appended(self, error):
        self.assertEqual(api.trailers(error).get("lockstep-outcome"), "not-appended", error.details())

    def channel(self, node=None):
        client = Client((node or self.leader).client_endpoint)
        self.addCleanup(client.close)
        return client

    # ---- Propose ----

    def test_a_command_is_answered_with_index_position_reply_and_durability(self):
        first = self.leader.client.propose(b"put grpc.a one")
        second = self.leader.client.propose(b"append grpc.a two")
        self.assertEqual((first.code, first.reply), (0, b""))
        self.assertEqual((second.code, second.reply), (0, b"6"))
        self.assertGreater(first.index, 0)
        self.assertEqual(second.position, first.position + 1)
        self.assertGreater(second.index, first.index)
        self.assertEqual(first.durability, pb.DURABILITY_FSYNC)
        self.assertEqual(self.leader.client.query(b"get grpc.a").reply, b"onetwo")

    def test_a_command_that_the_machine_refuses_is_ok_with_the_machines_code(self):
        answer = self.leader.client.propose(b"del grpc.absent")
        self.assertNotEqual(answer.code, 0)
        self.assertEqual(answer.reply, b"no such key")
        self.assertGreater(answer.position, 0)

    def test_any_bytes_are_a_command(self):
        value = bytes(range(256)).replace(b"\n", b"")
        self.assertEqual(self.leader.client.propose(b"put grpc.bytes =" + value).code, 0)
        self.assertEqual(self.leader.client.query(b"get grpc.bytes").reply, b"=" + value)
        self.assertNotEqual(self.leader.client.propose(b"").code, 0)

    def test_session_seq_and_entity_are_carried(self):
        session = self.leader.client.lockstep.OpenSession(pb.OpenSessionRequest(), timeout=api.CALL_SECONDS).session
        first = self.leader.client.propose(b"append grpc.s x", session=session, seq=1, entity=7)
        again = self.leader.client.propose(b"append grpc.s x", session=session, seq=1, entity=7)
        self.assertEqual((again.code, again.position), (0, first.position))
        self.assertEqual(self.leader.client.query(b"get grpc.s").reply, b"x")
        error = self.assert_fails(grpc.StatusCode.NOT_FOUND, self.leader.client.propose, b"put grpc.s y", session=1 << 63,
                                  seq=2 ** 64 - 1)
        self.assertIn("session", error.details())

    def test_a_command_of_the_largest_size_passes_and_one_byte_more_does_not(self):
        head = b"put grpc.large "
        full = head + b"x" * ((1 << 20) - len(head))
        self.assertEqual(self.leader.client.propose(full, timeout=api.CALL_SECONDS).code, 0)
        for node in (self.leader, self.follower):
            error = self.assert_fails(grpc.StatusCode.INVALID_ARGUMENT, node.client.propose, full + b"x")
            self.assert_not_appended(error)
        self.assertEqual(self.follower.client.propose(full, timeout=api.CALL_SECONDS).code, 0)

    def test_a_message_over_the_limit_is_resource_exhausted_and_surely_not_appended(self):
        client = self.channel()
        error = self.assert_fails(grpc.StatusCode.RESOURCE_EXHAUSTED, client.propose, b"x" * (5 << 20))
        self.assert_not_appended(error)
        self.assertEqual(client.propose(b"put grpc.after x").code, 0, "the connection goes on")

    # ---- followers, forwarding ----

    def test_a_follower_forwards_a_command_and_a_query_once(self):
        answer = self.follower.client.propose(b"put grpc.forward x")
        self.assertEqual(answer.code, 0)
        self.assertGreater(answer.position, 0)
        self.assertEqual(self.follower.client.query(b"get grpc.forward").reply, b"x")
        self.assertEqual(self.follower.client.propose(b"del grpc.absent").reply, b"no such key")

    def test_a_follower_that_shall_not_forward_names_the_leader(self):
        for call in (self.follower.client.propose, self.follower.client.query):
            error = self.assert_fails(grpc.StatusCode.FAILED_PRECONDITION, call, b"get grpc.a", forward=False)
            self.assertEqual(api.trailers(error).get("lockstep-leader"), self.leader.client_endpoint)
        error = self.assert_fails(grpc.StatusCode.FAILED_PRECONDITION, self.follower.client.propose, b"put a b",
                                  forward=False)
        self.assert_not_appended(error)

    def test_a_stream_at_a_follower_names_the_leader(self):
        call = self.follower.client.lockstep.ProposeStream(iter([self.message(b"put grpc.stream x")]), timeout=api.CALL_SECONDS)
        error = self.assert_fails(grpc.StatusCode.FAILED_PRECONDITION, lambda: list(call))
        self.assertEqual(api.trailers(error).get("lockstep-leader"), self.leader.client_endpoint)
        self.assert_not_appended(error)

    # ---- ProposeStream ----

    @staticmethod
    def message(*commands):
        return pb.ProposeStreamRequest(commands=[pb.ProposeRequest(command=c) for c in commands])

    def test_a_stream_answers_every_message_in_the_order_sent(self):
        messages = [[b"incr grpc.count 1"] * count for count in (1, 64, 0, 3, 500, 2)]
        answers = list(self.leader.client.lockstep.ProposeStream(
            iter([self.message(*m) for m in messages]), timeout=api.CALL_SECONDS))
        self.assertEqual([len(a.results) for a in answers], [len(m) for m in messages])
        results = [r for a in answers for r in a.results]
        self.assertEqual({r.outcome for r in results}, {pb.OUTCOME_APPLIED})
        values = [int(r.response.reply) for r in results]
        self.assertEqual(values, list(range(values[0], values[0] + len(values))))
        positions = [r.response.position for r in results]
        self.assertEqual(positions, sorted(set(positions)))
        self.assertEqual({r.response.durability for r in results}, {pb.DURABILITY_FSYNC})

    def test_a_stream_ends_at_the_first_command_that_is_not_appended(self):
        """A refusal by the machine is an answer like any other; behind what was not appended nothing is."""
        large = b"put grpc.x " + b"x" * (1 << 20)
        call = self.leader.client.lockstep.ProposeStream(
            iter([self.message(b"put grpc.one x", b"del grpc.absent", large, b"put grpc.two x"),
                  self.message(b"put grpc.three x")]), timeout=api.CALL_SECONDS)
        answer = next(call)
        self.assertEqual([r.outcome for r in answer.results],
                         [pb.OUTCOME_APPLIED, pb.OUTCOME_APPLIED, pb.OUTCOME_NOT_APPENDED, pb.OUTCOME_NOT_APPENDED])
        self.assertNotEqual(answer.results[1].response.code, 0)
        self.assertTrue(answer.results[2].error)
        error = self.assert_fails(grpc.StatusCode.INVALID_ARGUMENT, lambda: [
            self.assertEqual({r.outcome for r in a.results}, {pb.OUTCOME_NOT_APPENDED}) for a in call])
        self.assert_not_appended(error)
        for key in (b"two", b"three"):
            self.assertEqual(self.leader.client.query(b"get grpc." + key).reply, b"no such key")

    def test_a_stream_that_is_cancelled_leaves_the_node_alone(self):
        for _ in range(20):
            call = self.leader.client.lockstep.ProposeStream(
                iter([self.message(*[b"incr grpc.cancelled 1"] * 200)] * 4), timeout=api.CALL_SECONDS)
            time.sleep(self.random.uniform(0, 0.01))
            call.cancel()
        self.assertEqual(self.leader.client.propose(b"put grpc.after x").code, 0)

    def test_a_unary_call_that_is_cancelled_is_applied_once_or_never(self):
        for number in range(50):
            call = self.leader.client.lockstep.Propose.future(
                pb.ProposeRequest(command=b"append grpc.once%d x" % number), timeout=api.CALL_SECONDS)
            time.sleep(self.random.uniform(0, 0.002))
            call.cancel()
        self.leader.client.propose(b"put grpc.after x")
        for number in range(50):
            self.assertIn(self.leader.client.query(b"get grpc.once%d" % number).reply, (b"x", b"no such key"))

    # ---- Query ----

    def test_a_linearizable_query_sees_what_was_acknowledged_before_wherever_it_is_asked(self):
        for number in range(50):
            index = self.leader.client.propose(b"put grpc.seen %d" % number).index
            for node in self.nodes.nodes:
                answer = node.client.query(b"get grpc.seen")
                self.assertEqual(answer.reply, b"%d" % number)
                self.assertGreaterEqual(answer.index, index)

    def test_a_local_query_is_answered_by_the_node_itself_never_below_min_index(self):
        """A follower that has not heard of the index yet waits for it."""
        for number in range(20):
            index = self.leader.client.propose(b"put grpc.local %d" % number).index
            answer = self.follower.client.query(b"get grpc.local", consistency=pb.CONSISTENCY_LOCAL, min_index=index,
                                                forward=False)
            self.assertEqual(answer.reply, b"%d" % number)
            self.assertGreaterEqual(answer.index, index)

    def test_a_query_for_an_index_that_does_not_exist_yet_ends_at_its_deadline(self):
        began = time.monotonic()
        index = self.leader.status_now().last_index + 1000000
        with self.assertRaises(grpc.RpcError) as caught:
            self.leader.client.query(b"get grpc.a", consistency=pb.CONSISTENCY_LOCAL, min_index=index, timeout=0.5)
        self.assertIn(caught.exception.code(), (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNAVAILABLE))
        self.assertLess(time.monotonic() - began, api.CALL_SECONDS)
        self.assertEqual(self.leader.client.propose(b"put grpc.after x").code, 0)

    def test_a_query_that_the_machine_refuses_is_ok_with_its_code(self):
        self.assertNotEqual(self.leader.client.query(b"put grpc.a x").code, 0)
        self.assertEqual(self.leader.client.query(b"get grpc.absent").reply, b"no such key")

    def test_an_unknown_consistency_is_an_invalid_argument(self):
        self.assert_fails(grpc.StatusCode.INVALID_ARGUMENT, self.leader.client.query, b"get grpc.a", consistency=7)

    # ---- Status, TransferLeader ----

    def test_status_is_answered_by_every_node_and_names_all_members(self):
        seen = self.nodes.wait_equal()
        self.nodes.wait_hashes()
        self.assertEqual(len({s.cluster_id for s in seen.values()}), 1)
        self.assertEqual(len({s.member_id for s in seen.values()}), 3)
        for name, s in seen.items():
            self.assertEqual((s.cluster, s.name, s.machine, s.durability), ("system", name, "kv", pb.DURABILITY_FSYNC))
            self.assertEqual((s.leader, s.leader_client), (self.leader.name, self.leader.client_endpoint))
            self.assertEqual({m.name: (m.client, m.peer, m.voter) for m in s.members},
                             {n.name: (n.client_endpoint, n.peer_endpoint, True) for n in self.nodes.nodes})
            self.assertEqual({m.name for m in s.members if m.connected} | {name}, {"n1", "n2", "n3"})
            self.assertTrue(s.version)
            self.assertTrue(s.machine_version)
            self.assertGreater(s.counters.flushes, 0)
            self.assertGreaterEqual(s.durable_index, s.stored_index)
        leader = seen[self.leader.name]
        self.assertEqual({m.match for m in leader.members if m.name != leader.name}, {leader.last_index})

    def test_leadership_goes_to_the_member_that_is_named(self):
        answer = self.leader.client.transfer(self.follower.name)
        self.assertEqual(answer.leader, self.follower.name)
        self.assertGreater(answer.term, 0)
        self.assertIs(self.nodes.settled(), self.follower)
        self.assertEqual(self.leader.client.propose(b"put grpc.after x").code, 0)

    def test_leadership_goes_to_somebody_when_nobody_is_named(self):
        answer = self.leader.client.transfer()
        self.assertIn(answer.leader, {n.name for n in self.nodes.nodes} - {self.leader.name})
        self.assertEqual(self.nodes.settled().name, answer.leader)

    def test_a_transfer_to_a_stranger_at_a_follower_or_to_itself_says_so(self):
        self.assert_fails(grpc.StatusCode.NOT_FOUND, self.leader.client.transfer, "nobody")
        error = self.assert_fails(grpc.StatusCode.FAILED_PRECONDITION, self.follower.client.transfer, self.follower.name)
        self.assertEqual(api.trailers(error).get("lockstep-leader"), self.leader.client_endpoint)
        self.assert_fails(grpc.StatusCode.ALREADY_EXISTS, self.leader.client.transfer, self.leader.name)

    # ---- gRPC itself ----

    def test_an_unknown_method_or_service_is_unimplemented(self):
        channel = self.channel().channel
        for path in ("/lockstep.v1.Lockstep/Nothing", "/nothing.v1.Nothing/Propose", "/", "/x"):
            self.assert_fails(grpc.StatusCode.UNIMPLEMENTED, channel.unary_unary(path), b"", timeout=api.CALL_SECONDS)

    def test_a_compressed_message_is_unimplemented_and_identity_is_offered(self):
        client = self.channel()
        error = self.assert_fails(grpc.StatusCode.UNIMPLEMENTED, client.lockstep.Propose,
                                  pb.ProposeRequest(command=b"put grpc.gzip " + b"x" * 1000), timeout=api.CALL_SECONDS,
                                  compression=grpc.Compression.Gzip)
        self.assert_not_appended(error)
        self.assertEqual(client.propose(b"put grpc.after x").code, 0)

    def test_bytes_that_are_no_message_are_an_invalid_argument(self):
        channel = self.channel().channel
        for data in (b"\xff", b"\x0a\xff\xff\xff\xff\x0f", b"\x0a\x05ab", b"\x0b" * 100):
            for method in ("Propose", "Query"):
                error = self.assert_fails(grpc.StatusCode.INVALID_ARGUMENT,
                                          channel.unary_unary(f"/lockstep.v1.Lockstep/{method}"), data,
                                          timeout=api.CALL_SECONDS)
            self.assert_fails(grpc.StatusCode.INVALID_ARGUMENT,
                              channel.unary_unary("/lockstep.v1.Lockstep/Propose"), data, timeout=api.CALL_SECONDS)
            del error

    def test_fields_that_are_not_known_yet_are_ignored(self):
        raw = pb.ProposeRequest(command=b"put grpc.future x").SerializeToString() + b"\xfa\x01\x03abc\xf8\x01\x05"
        answer = self.channel().channel.unary_unary("/lockstep.v1.Lockstep/Propose")(raw, timeout=api.CALL_SECONDS)
        self.assertEqual(pb.ProposeResponse.FromString(answer).code, 0)

    def test_many_calls_at_once_on_one_connection(self):
        calls = [self.leader.client.lockstep.Propose.future(
            pb.ProposeRequest(command=b"put grpc.many%d x" % n), timeout=api.CALL_SECONDS) for n in range(1000)]
        positions = [call.result().position for call in calls]
        self.assertEqual(len(set(positions)), 1000)

    # ---- health ----

    def health(self, node):
        return health_pb2_grpc.HealthStub(node.client.channel)

    def check(self, node, service):
        return self.health(node).Check(health_pb2.HealthCheckRequest(service=service), timeout=api.CALL_SECONDS).status

    def test_health_checks_know_the_node_the_service_and_the_leader(self):
        for node in self.nodes.nodes:
            self.assertEqual(self.check(node, ""), SERVING)
            self.assertEqual(self.check(node, "lockstep.v1.Lockstep"), SERVING)
            self.assertEqual(self.check(node, "lockstep.leader"), SERVING if node is self.leader else NOT_SERVING)
        self.assert_fails(grpc.StatusCode.NOT_FOUND, self.check, self.leader, "nothing")

    def test_health_watches_are_told_of_a_change_of_leader(self):
        seen = {n.name: [] for n in self.nodes.nodes}
        calls = []
        for node in self.nodes.nodes:
            call = self.health(node).Watch(health_pb2.HealthCheckRequest(service="lockstep.leader"), timeout=60)
            calls.append(call)

            def follow(name=node.name, call=call):
                try:
                    for answer in call:
                        seen[name].append(answer.status)
                except grpc.RpcError:
                    pass
            threading.Thread(target=follow, daemon=True).start()
        until(lambda: all(seen.values()), settings.patience(20), lambda: f"each watch begins with an answer: {seen}")
        self.assertEqual({name: s[0] for name, s in seen.items()},
                         {n.name: SERVING if n is self.leader else NOT_SERVING for n in self.nodes.nodes})
        self.leader.client.transfer(self.follower.name)
        until(lambda: seen[self.follower.name][-1] == SERVING and seen[self.leader.name][-1] == NOT_SERVING,
              settings.patience(20), lambda: f"the watches saw the transfer: {seen}")
        for call in calls:
            call.cancel()

    def test_a_health_watch_of_an_unknown_service_says_so_and_stays(self):
        call = self.health(self.leader).Watch(health_pb2.HealthCheckRequest(service="nothing"), timeout=4)
        self.assertEqual(next(call).status, SERVICE_UNKNOWN)
        self.assert_fails(grpc.StatusCode.DEADLINE_EXCEEDED, next, call)

    # ---- reflection ----

    def reflection(self, messages, stub):
        """A function that sends requests in one stream and returns the answers."""
        def ask(*requests):
            return list(stub.ServerReflectionInfo(
                iter([messages.ServerReflectionRequest(**r) for r in requests]), timeout=api.CALL_SECONDS))
        return ask

    @staticmethod
    def plain(data):
        """A file's descriptor without the names for JSON, which Python's stubs leave out."""
        file = descriptor_pb2.FileDescriptorProto.FromString(data)
        for message in file.message_type:
            for field in message.field:
                field.ClearField("json_name")
        return file

    def test_reflection_lists_services_and_gives_files_by_symbol_and_by_name(self):
        channel = self.leader.client.channel
        for messages, stub in (
                (reflection_v1, reflection_v1_grpc.ServerReflectionStub(channel)),
                (reflection_v1alpha, reflection_v1alpha_grpc.ServerReflectionStub(channel))):
            ask = self.reflection(messages, stub)
            answers = ask({"list_services": ""}, {"file_containing_symbol": "lockstep.v1.Lockstep"},
                          {"file_by_filename": "lockstep/v1/lockstep.proto"}, {"file_containing_symbol": "no.Such"},
                          {"file_containing_symbol": "lockstep.v1.ProposeRequest"},
                          {"file_containing_symbol": "grpc.health.v1.Health"})
            self.assertEqual(len(answers), 6)
            listed = {s.name for s in answers[0].list_services_response.service}
            self.assertLessEqual({"lockstep.v1.Lockstep", "lockstep.v1.Admin", "grpc.health.v1.Health"}, listed)
            self.assertTrue({"grpc.reflection.v1.ServerReflection",
                             "grpc.reflection.v1alpha.ServerReflection"} & listed)
            own = self.plain(pb.DESCRIPTOR.serialized_pb)
            for answer in (answers[1], answers[2], answers[4]):
                self.assertIn(own, map(self.plain, answer.file_descriptor_response.file_descriptor_proto))
            self.assertEqual(answers[3].error_response.error_code, grpc.StatusCode.NOT_FOUND.value[0])
            [health] = answers[5].file_descriptor_response.file_descriptor_proto
            self.assertEqual(descriptor_pb2.FileDescriptorProto.FromString(health).package, "grpc.health.v1")

    # ---- HTTP/1.1 ----

    def curl(self, node, path, *arguments):
        code, out, err = process.run(["curl", "--silent", "--show-error", "--noproxy", "*", "--max-time", "30",
                                      "--write-out", "\n%{http_code} %{content_type}", *arguments,
                                      f"http://{node.client_endpoint}{path}"], seconds=settings.patience(30))
        self.assertEqual(code, 0, err)
        body, _, line = out.rpartition("\n")
        status, _, kind = line.partition(" ")
        return int(status), kind, body

    def test_livez_readyz_and_metrics_answer_curl(self):
        for node in self.nodes.nodes:
            self.assertEqual(self.curl(node, "/livez")[0], 200)
            self.assertEqual(self.curl(node, "/readyz")[0], 200)
            status, kind, text = self.curl(node, "/metrics")
            self.assertEqual(status, 200)
            self.assertTrue(kind.startswith("text/plain"), kind)
            self.assertIn("# TYPE lockstep_", text)
            self.check_metrics(text)
        self.assertEqual(self.curl(self.leader, "/nothing")[0], 404)
        self.assertEqual(self.curl(self.leader, "/livez", "--data", "x")[0], 405)
        self.assertIn(self.curl(self.leader, "/livez", "--request", "DELETE")[0], (405, 501))
        self.assertEqual(self.curl(self.leader, "/livez", "--head")[0], 200)

    def check_metrics(self, text):
        """The exposition format's rules that matter; promtool judges too where it is installed."""
        types = {}
        for line in text.splitlines():
            if line.startswith("# TYPE "):
                _, _, name, kind = line.split(" ")
                self.assertNotIn(name, types)
                types[name] = kind
            elif line and not line.startswith("#"):
                name = line.split("{")[0].split(" ")[0]
                float(line.rpartition(" ")[2])
                base = name if name in types else name.rpartition("_")[0]
                self.assertIn(base, types, line)
                self.assertEqual(types[base] == "counter", name.endswith("_total"), line)
        self.assertTrue(types)
        if shutil.which("promtool"):
            code, out, err = process.run(["promtool", "check", "metrics"], stdin=text.encode())
            self.assertEqual(code, 0, out + err)

    def test_one_http_connection_serves_many_requests(self):
        connection = http.client.HTTPConnection(self.leader.host, self.leader.client_port, timeout=api.CALL_SECONDS)
        self.addCleanup(connection.close)
        for _ in range(20):
            connection.request("GET", "/livez")
            answer = connection.getresponse()
            self.assertEqual(answer.status, 200)
            answer.read()
        local = connection.sock.getsockname()
        connection.request("HEAD", "/metrics")
        answer = connection.getresponse()
        self.assertEqual((answer.status, answer.read()), (200, b""))
        self.assertEqual(connection.sock.getsockname(), local, "it was one connection")

    def test_http2_that_is_no_grpc_is_told_so(self):
        post = http2.request(b"/lockstep.v1.Lockstep/Propose").replace(b"application/grpc", b"application/json")
        for head, status in ((post, b"415"), (http2.request(b"/lockstep.v1.Lockstep/Propose", method=b"PUTT"), b"405")):
            with http2.Connection(self.leader.host, self.leader.client_port) as connection:
                connection.greet()
                connection.send(http2.frame(http2.HEADERS, http2.END_HEADERS | http2.END_STREAM, 1, head))
                data, _ = connection.read_until_close(settings.patience(20), lambda data, status=status: status in data)
                self.assertIn(status, data)


class WithoutQuorum(Case):
    def test_commands_in_flight_are_unknown_and_later_ones_are_refused_when_the_quorum_is_gone(self):
        cluster = self.cluster(nodes=3, sections=STEADY).start()
        leader = cluster.leader()
        leader.write(b"put k v")
        for node in cluster.followers(leader):
            node.pause()
        with self.assertRaises(grpc.RpcError) as caught:
            leader.client.propose(b"put k in-flight", timeout=settings.patience(20))
        error = caught.exception
        say(f"in flight: {error.code().name}: {error.details()}")
        self.assertIn(error.code(), (grpc.StatusCode.ABORTED, grpc.StatusCode.DEADLINE_EXCEEDED))
        self.assertEqual(api.fate(error), api.UNKNOWN)
        # Check-quorum: the leader gives up; from now on nothing is appended here.
        until(lambda: leader.status_now().role != "leader", settings.patience(20), "the leader gives up")
        for call in (lambda: leader.client.propose(b"put k later"),
                     lambda: leader.client.query(b"get k")):
            with self.assertRaises(grpc.RpcError) as caught:
                call()
            self.assertEqual(caught.exception.code(), grpc.StatusCode.UNAVAILABLE, caught.exception.details())
        with self.assertRaises(grpc.RpcError) as caught:
            leader.client.propose(b"put k later")
        self.assertEqual(api.fate(caught.exception), api.NOT_APPENDED)
        # What does not need a quorum works.
        self.assertEqual(leader.client.query(b"get k", consistency=pb.CONSISTENCY_LOCAL).reply, b"v")
        connection = http.client.HTTPConnection(leader.host, leader.client_port, timeout=api.CALL_SECONDS)
        self.addCleanup(connection.close)
        statuses = {}
        for path in ("/livez", "/readyz", "/metrics"):
            connection.request("GET", path)
            answer = connection.getresponse()
            statuses[path] = answer.status
            answer.read()
        self.assertEqual(statuses, {"/livez": 200, "/readyz": 503, "/metrics": 200})
        health = health_pb2_grpc.HealthStub(leader.client.channel)
        answers = {name: health.Check(health_pb2.HealthCheckRequest(service=name), timeout=api.CALL_SECONDS).status
                   for name in ("", "lockstep.v1.Lockstep", "lockstep.leader")}
        self.assertEqual(answers, {"": SERVING, "lockstep.v1.Lockstep": NOT_SERVING, "lockstep.leader": NOT_SERVING})
        for node in cluster.nodes:
            if node is not leader:
                node.resume()
        cluster.leader()
        until(lambda: self.writes(leader), settings.patience(20), "writable again")
        self.assertIn(leader.read(b"get k").reply, (b"v", b"in-flight"))
        cluster.wait_hashes()

    @staticmethod
    def writes(node):
        try:
            return node.client.propose(b"put after x", timeout=2)
        except grpc.RpcError:
            return None

    def test_a_full_node_says_when_to_come_back(self):
        """The followers stand still: what is appended stays uncommitted, up to a bound; the rest is refused."""
        cluster = self.cluster(nodes=3, sections=STEADY, ring=8 << 20).start()
        leader = cluster.leader()
        leader.write(b"put k v")
        for node in cluster.followers(leader):
            node.pause()
        payload = b"put k " + b"x" * (500 << 10)
        calls = [leader.client.lockstep.Propose.future(pb.ProposeRequest(command=payload), timeout=api.CALL_SECONDS)
                 for _ in range(60)]
        codes = {}
        hints = []
        for call in calls:
            error = call.exception(timeout=settings.patience(30))
            if error is None:
                codes["OK"] = codes.get("OK", 0) + 1
                continue
            codes[error.code().name] = codes.get(error.code().name, 0) + 1
            if error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED:
                hints.append(api.trailers(error).get("lockstep-retry-after-ms"))
                self.assertEqual(api.fate(error), api.NOT_APPENDED)
        say(f"60 commands of 500 KiB, followers stopped: {codes}, hints {set(hints)}")
        self.assertTrue(hints, "30 MB fitted into a ring of 8 MiB")
        for hint in hints:
            self.assertRegex(hint or "", r"^[1-9][0-9]*$")
        for node in cluster.nodes:
            if node is not leader:
                node.resume()
        until(lambda: self.writes(cluster.leader()), settings.patience(20), "writable again")


if __name__ == "__main__":
    main()

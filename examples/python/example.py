#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Counts visits in a lockstep cluster with the machine kv: example.py [HOST:PORT,...]"""
import os
import sys

from lockstep_client import Client, Error, OutcomeUnknown, Refused

endpoints = sys.argv[1] if len(sys.argv) > 1 else os.environ.get("LOCKSTEP_ENDPOINTS", "127.0.0.1:7401")
client = Client(endpoints.split(","))


def count():
    """Count one visit; returns the answer."""
    try:
        return client.propose(b"incr visits 1")
    except OutcomeUnknown as unknown:
        # No answer in 10 s, however often it was sent: the one case that needs thought. Reading tells: did the count rise?
        print(f"it may have been counted: {unknown}", file=sys.stderr)
        sys.exit(6)
    except (Error, Refused) as error:
        print(f"surely not counted: {error}", file=sys.stderr)
        sys.exit(1)


try:
    answer = count()
    print(f"visit {answer.reply.decode()}, at position {answer.position}, durable on a majority")
    print(f"the cluster says: {client.query(b'get visits').reply.decode()}")
    try:
        client.propose(b"cas visits none 0")
    except Refused as refused:
        print(f"as it should be: {refused}")
except (Error, OutcomeUnknown) as error:
    print(f"it was counted; then: {error}", file=sys.stderr)
    sys.exit(1)
finally:
    client.close()

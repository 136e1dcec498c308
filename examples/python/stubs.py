# SPDX-License-Identifier: Apache-2.0
"""The stubs of lockstep.v1, generated when they are first wanted, into a directory that goes with the process.

A project would generate them once, when it is built:
    protoc -I proto --python_out=OUT --grpc_out=OUT --plugin=protoc-gen-grpc=/usr/bin/grpc_python_plugin \\
        lockstep/v1/lockstep.proto
"""
import importlib
import pathlib
import subprocess
import sys
import tempfile

PROTO = pathlib.Path(__file__).resolve().parents[2] / "proto"


def load():
    """The two modules: messages, services."""
    out = tempfile.TemporaryDirectory()
    subprocess.run(["protoc", f"-I{PROTO}", f"--python_out={out.name}", f"--grpc_out={out.name}",
                    "--plugin=protoc-gen-grpc=/usr/bin/grpc_python_plugin", "lockstep/v1/lockstep.proto"], check=True)
    sys.path.insert(0, out.name)
    try:
        return (importlib.import_module("lockstep.v1.lockstep_pb2"),
                importlib.import_module("lockstep.v1.lockstep_pb2_grpc"))
    finally:
        sys.path.remove(out.name)
        out.cleanup()

# SPDX-License-Identifier: Apache-2.0
"""Makes the Python stubs in the build folder: make_stubs.py PROTOC PLUGIN SOURCE OUT STAMP

Beside lockstep's own: health and reflection, from Debian's grpc-proto. Their folder is named so that they become the
packages `health` and `reflection`: a package `grpc` would hide grpcio.
"""
import pathlib
import shutil
import subprocess
import sys

protoc, plugin, source, out, stamp = sys.argv[1:]
GRPC_PROTO = "/usr/share/grpc-proto/grpc"

shutil.rmtree(out, ignore_errors=True)
pathlib.Path(out).mkdir(parents=True)
for root, files in ((f"{source}/proto", ["lockstep/v1/lockstep.proto"]),
                    (GRPC_PROTO, ["health/v1/health.proto", "reflection/v1/reflection.proto",
                                  "reflection/v1alpha/reflection.proto"])):
    subprocess.run([protoc, f"-I{root}", f"--python_out={out}", f"--grpc_python_out={out}",
                    f"--plugin=protoc-gen-grpc_python={plugin}", *files], check=True)
pathlib.Path(stamp).write_text("made\n", encoding="utf-8")

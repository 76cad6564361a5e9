"""Makes sluice/v1, the API in Python, from the .proto files: at every build, never committed."""

import pathlib
import shutil
from importlib import resources

from grpc_tools import protoc
from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class Stubs(BuildHookInterface):
    def initialize(self, version, build_data):
        root = pathlib.Path(self.root)
        # proto/ and LICENSE are here in a source distribution, which carries them.
        source = root if (root / "proto").is_dir() else root.parent.parent
        include = build_data["force_include"]
        if self.target_name == "sdist":
            include[str(source / "LICENSE")] = "LICENSE"
            for file in source.glob("proto/**/*.proto"):
                include[str(file)] = str(file.relative_to(source))
            return
        include[str(source / "LICENSE")] = "sluice/LICENSE"
        make_stubs(source / "proto", root)
        build_data["artifacts"].append("/sluice/v1")


def make_stubs(protos, out):
    """sluice.v1 below `out`. google.rpc is not made: googleapis-common-protos has it."""
    package = out / "sluice/v1"
    shutil.rmtree(package, ignore_errors=True)
    package.mkdir(parents=True)
    files = sorted(str(file.relative_to(protos)) for file in protos.glob("sluice/v1/*.proto"))
    well_known = resources.files("grpc_tools") / "_proto"
    code = protoc.main(
        [
            "protoc",
            f"-I{protos}",
            f"-I{well_known}",
            f"--python_out={out}",
            f"--pyi_out={out}",
            f"--grpc_python_out={out}",
            *files,
        ]
    )
    if code != 0 or not files:
        raise RuntimeError(f"protoc made no stubs of {protos}/sluice/v1")
    for stub in package.glob("*_pb2_grpc.py"):
        if "class " not in stub.read_text():
            stub.unlink()  # of a file without a service
    (package / "__init__.py").write_text('"""The messages and services of proto/sluice/v1."""\n')

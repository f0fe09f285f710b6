"""Makes the Python types of the messages from the `.proto` files. `--check` only compares, and fails where a file is not what its source makes.

It needs `pip install trapgate-debug-client[generate]`. The compiler is an old one on purpose: code of an old compiler runs with an old and a new `protobuf`.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
SOURCES = HERE.parent / "vmm_core_defs" / "proto"
PACKAGE = Path("trapgate/debug/v1")
TARGET = HERE / "src"


def generate(folder: Path) -> list[Path]:
    """Writes the generated files into a folder, and returns their paths in it."""
    sources = sorted(str(path) for path in (SOURCES / PACKAGE).glob("*.proto"))
    # Beside the interpreter: a virtual environment need not be activated.
    plugin = Path(sys.executable).parent / "protoc-gen-mypy"
    compiler = [sys.executable, "-m", "grpc_tools.protoc", f"-I{SOURCES}", f"--plugin={plugin}"]
    subprocess.run([*compiler, f"--python_out={folder}", f"--mypy_out=quiet:{folder}", *sources], check=True)
    return sorted(path.relative_to(folder) for path in (folder / PACKAGE).glob("*_pb2.py*"))


def stale() -> list[str]:
    """The files in the tree that differ from what their sources make, and those that have no source any more."""
    with tempfile.TemporaryDirectory() as name:
        made = {path: (Path(name) / path).read_bytes() for path in generate(Path(name))}
    found = {
        path.relative_to(TARGET): path.read_bytes()
        for path in (TARGET / PACKAGE).glob("*_pb2.py*")
    }
    return sorted(str(path) for path in made.keys() | found.keys() if made.get(path) != found.get(path))


def main() -> int:
    if sys.argv[1:] != ["--check"]:
        print("\n".join(str(path) for path in generate(TARGET)))
        return 0
    different = stale()
    if different:
        print(f"not what the .proto files make: {', '.join(different)}; run generate.py", file=sys.stderr)
    return int(bool(different))


if __name__ == "__main__":
    sys.exit(main())

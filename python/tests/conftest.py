"""Live guests: VMMs that the tests start with the program of the environment variable `TRAPGATE_BIN`."""

from __future__ import annotations

import os
import selectors
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import trapgate
from peer import Peer, Serve

#: In seconds. Long enough for a host that emulates the guest, on a busy machine.
LONG = 60.0

#: In seconds. For what must not happen.
SHORT = 0.3


class Guest:
    """The demo guest in a VMM of its own, held, with a socket for programs."""

    def __init__(self, folder: Path, cpus: int, *options: str) -> None:
        self.path = folder / f"rpc{cpus}"
        self.address = f"unix:{self.path}"
        self.cpus = cpus
        command = [_program(), "run", "--gdb", "off", "--rpc", self.address, "--cpus", str(cpus), *options]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self._output = b""
        self.wait_for("rpc: listening on ")

    def wait_for(self, text: str) -> None:
        """Reads the VMM's output until it has this text."""
        pipe = self.process.stdout
        assert pipe is not None
        deadline = time.monotonic() + LONG
        with selectors.DefaultSelector() as selector:
            selector.register(pipe, selectors.EVENT_READ)
            while text.encode() not in self._output:
                ready = selector.select(max(0, deadline - time.monotonic()))
                more = os.read(pipe.fileno(), 4096) if ready else b""
                assert more, f"the VMM has not printed `{text}`, but: {self._output.decode(errors='replace')}"
                self._output += more

    def connect(self) -> trapgate.Debugger:
        """Attaches once no other debugger is attached: the VMM hears of the end of a session a little later."""
        deadline = time.monotonic() + LONG
        while True:
            try:
                return trapgate.connect(self.address, request_limit=LONG)
            except trapgate.AlreadyAttached:
                assert time.monotonic() < deadline

    def end(self) -> None:
        """Ends the VMM."""
        self.process.kill()
        self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()


def _program() -> str:
    program = os.environ.get("TRAPGATE_BIN")
    if not program or not Path(program).is_file():
        pytest.fail(
            "these tests need a VMM: build one with `cargo build --package trapgate`, and set TRAPGATE_BIN to the path of "
            "target/debug/trapgate, or run `cargo xtask test --only python`"
        )
    return program


StartGuest = Callable[..., Guest]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[StartGuest]:
    """A function that starts a guest with this number of CPUs and other options of `trapgate run`."""
    try:
        with open("/dev/kvm", "r+b", buffering=0):
            pass
    except OSError as error:
        pytest.skip(f"/dev/kvm cannot be used: {error}")
    guests = []

    def begin(cpus: int = 2, *options: str) -> Guest:
        guests.append(Guest(tmp_path, cpus, *options))
        return guests[-1]

    yield begin
    for guest in guests:
        guest.end()


@pytest.fixture(params=[1, 2, 4])
def guest(request: pytest.FixtureRequest, start: StartGuest) -> Guest:
    """A guest with 1, 2 and 4 CPUs."""
    return start(request.param)


@pytest.fixture(scope="session")
def elf() -> Path:
    """The demo guest's ELF file, which `trapgate run` writes into its cache."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "trapgate" / "demo-guest.elf"


@pytest.fixture
def symbols(elf: Path) -> trapgate.Symbols:
    """The symbols of the demo guest."""
    pytest.importorskip("elftools", reason="pyelftools is not installed")
    return trapgate.Symbols.load(elf)


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """A function that serves one connection with a function, and returns the address. The errors of that function fail the test."""
    failures: list[BaseException] = []
    threads = []
    listener = socket.socket(socket.AF_UNIX)

    def begin(play: Callable[[Peer], None]) -> str:
        path = tmp_path / "rpc"
        listener.bind(str(path))
        listener.listen()

        def run() -> None:
            try:
                connected = listener.accept()[0]
                with connected:
                    play(Peer(connected))
            except BaseException as error:
                failures.append(error)

        threads.append(threading.Thread(target=run, daemon=True))
        threads[-1].start()
        return f"unix:{path}"

    yield begin
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()
    listener.close()
    assert not failures, failures


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Names the reason of each skip in the form that `cargo xtask test` reads."""
    for report in terminalreporter.getreports("skipped"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        terminalreporter.write_line(f"SKIP: {reason.removeprefix('Skipped: ')}")
    stats = {kind: len(terminalreporter.getreports(kind)) for kind in ("passed", "skipped", "failed", "error")}
    failed = stats["failed"] + stats["error"]
    passed = stats["passed"] + stats["skipped"]
    terminalreporter.write_line(f"test result: {'FAILED' if failed else 'ok'}. {passed} passed; {failed} failed; 0 ignored")

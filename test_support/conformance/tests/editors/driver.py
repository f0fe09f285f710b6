# An editor without a person: takes a configuration from the Guide's launch file and debugs the demo guest with it.
#
#   driver.py PAGE TYPE ADDRESS PROGRAM -- ADAPTER...
#
# PAGE is the Guide's page, TYPE the `type` of the configuration. ADDRESS and PROGRAM take the place of the address and the program in the configuration. ADAPTER speaks the
# Debug Adapter Protocol; for `cppdbg` it is GDB, which gets the commands of GDB/MI that the adapter sends. Prints `editor: ok` at the end, or what is wrong.

import json
import os
import re
import select
import subprocess
import sys

ROUND = "do_round"

# lldb-dap forgets a pause that comes before it has noticed that the guest runs, and lldb-vscode does not say when it has. After this time a person presses again.
PRESS_AGAIN = 5
PRESSES = 6


class Wrong(Exception):
    pass


def check(holds, what):
    if not holds:
        raise Wrong(what)


def configuration(page, kind, address, program):
    text = open(page, encoding="utf-8").read()
    launch = json.loads(text.split("```json\n")[1].split("```")[0])
    found = [c for c in launch["configurations"] if c["type"] == kind]
    check(len(found) == 1, "the Guide has %d configurations of the type %s" % (len(found), kind))
    words = json.dumps(found[0])
    host, port = address.split(":")
    for old, new in [("127.0.0.1", host), ("1234", port), ("${workspaceFolder}/vmlinux", program)]:
        check(old in words, "the Guide's settings have no %s" % old)
        words = words.replace(old, new)
    return json.loads(words.replace("${workspaceFolder}", "."))


class Dap:
    """A client of the Debug Adapter Protocol."""

    def __init__(self, adapter):
        self.process = subprocess.Popen(adapter, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
        self.buffer = b""
        self.sent = 0
        self.waiting = []

    def send(self, command, arguments):
        self.sent += 1
        message = {"seq": self.sent, "type": "request", "command": command, "arguments": arguments}
        body = json.dumps(message).encode()
        self.process.stdin.write(b"Content-Length: %d\r\n\r\n%s" % (len(body), body))
        self.process.stdin.flush()
        return self.sent

    def fill(self, seconds):
        """Reads bytes. False if none come in time."""
        if not select.select([self.process.stdout], [], [], seconds)[0]:
            return False
        data = os.read(self.process.stdout.fileno(), 65536)
        check(data, "the adapter has ended")
        self.buffer += data
        return True

    def read(self, seconds=None):
        """The next message. None if none comes in time."""
        while True:
            head, end, rest = self.buffer.partition(b"\r\n\r\n")
            if end:
                length = int(re.search(rb"(?i)content-length: *([0-9]+)", head).group(1))
                if len(rest) >= length:
                    self.buffer = rest[length:]
                    message = json.loads(rest[:length])
                    print("editor:", json.dumps(message)[:400], flush=True)
                    return message
            if not self.fill(seconds):
                return None

    def wait(self, wanted, seconds=None):
        """The first message that is wanted. The others stay for later. None if nothing comes in time."""
        for message in self.waiting:
            if wanted(message):
                self.waiting.remove(message)
                return message
        while True:
            message = self.read(seconds)
            if message is None or wanted(message):
                return message
            check(message.get("success", True), "the adapter refuses: %s" % message)
            self.waiting.append(message)

    def answer(self, number):
        answer = self.wait(lambda m: m["type"] == "response" and m["request_seq"] == number)
        check(answer["success"], "the adapter refuses: %s" % answer)
        return answer.get("body")

    def ask(self, command, **arguments):
        return self.answer(self.send(command, arguments))

    def event(self, name):
        return self.wait(lambda m: m["type"] == "event" and m["event"] == name).get("body")

    def stopped(self, reason):
        """A stop for this reason. lldb-dap sometimes repeats the stop before the last resume, without a reason."""
        return self.wait(lambda m: m.get("event") == "stopped" and reason in m["body"].get("reason", ""))["body"]

    def pause(self, thread):
        for _ in range(PRESSES):
            self.ask("pause", threadId=thread)
            if self.wait(lambda m: m.get("event") == "stopped" and m["body"].get("reason"), PRESS_AGAIN):
                return
        raise Wrong("the guest does not stop")

    def forget_stops(self):
        self.waiting = [m for m in self.waiting if m.get("event") != "stopped"]


def by_dap(settings, adapter):
    dap = Dap(adapter)
    dap.ask("initialize", clientID="vscode", adapterID=settings["type"], pathFormat="path", linesStartAt1=True, columnsStartAt1=True)
    start = dap.send(settings["request"], settings)
    dap.event("initialized")
    breakpoints = dap.ask("setFunctionBreakpoints", breakpoints=[{"name": ROUND}])["breakpoints"]
    check(len(breakpoints) == 1, breakpoints)
    dap.ask("configurationDone")
    dap.answer(start)
    dap.event("stopped")
    threads = sorted(dap.ask("threads")["threads"], key=lambda thread: thread["id"])
    check(len(threads) == 2, threads)
    # LLDB learns the names only after it has told the adapter of the stop.
    if settings["type"] == "gdb":
        check(threads[0]["name"] == "vCPU 0" and threads[1]["name"] == "vCPU 1", threads)
    dap.forget_stops()

    dap.ask("continue", threadId=threads[0]["id"])
    thread = dap.stopped("breakpoint")["threadId"]
    frames = dap.ask("stackTrace", threadId=thread, startFrame=0, levels=3)["stackFrames"]
    check(frames[0]["name"].startswith(ROUND) and frames[1]["name"].startswith("cpu_loop"), frames)
    check(frames[0]["source"]["path"].endswith("main.c"), frames)
    frame = frames[0]["id"]
    scopes = dap.ask("scopes", frameId=frame)["scopes"]
    names = []
    for scope in scopes:
        if not scope["name"].lower().startswith(("global", "register")):
            for variable in dap.ask("variables", variablesReference=scope["variablesReference"])["variables"]:
                names.append(variable["name"])
    check("cpu" in names, names)
    rounds = dap.ask("evaluate", expression="cpu->rounds", frameId=frame, context="watch")["result"]
    check(int(rounds.split()[-1], 0) >= 0, rounds)

    # Another vCPU would hit the breakpoint meanwhile.
    dap.ask("setFunctionBreakpoints", breakpoints=[])
    line = frames[0]["line"]
    dap.forget_stops()
    dap.ask("next", threadId=thread)
    dap.stopped("step")
    frames = dap.ask("stackTrace", threadId=thread, startFrame=0, levels=1)["stackFrames"]
    check(frames[0]["line"] > line, "a step from line %d to %s" % (line, frames))

    dap.forget_stops()
    dap.ask("continue", threadId=thread)
    dap.pause(thread)
    dap.ask("disconnect", terminateDebuggee=False)


class Mi:
    """GDB/MI as the adapter of `cppdbg` speaks it."""

    def __init__(self, gdb):
        self.process = subprocess.Popen(gdb, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.sent = 1000
        self.stops = []

    def read(self):
        line = self.process.stdout.readline()
        check(line, "GDB has ended")
        print("editor:", line.rstrip()[:400], flush=True)
        if line.startswith("*stopped"):
            self.stops.append(line)
        return line

    def ask(self, command):
        self.sent += 1
        self.process.stdin.write("%d%s\n" % (self.sent, command))
        self.process.stdin.flush()
        while True:
            line = self.read()
            if line.startswith("%d^" % self.sent):
                check("^error" not in line, "%s: %s" % (command, line))
                return line

    def stop(self):
        while not self.stops:
            self.read()
        return self.stops.pop(0)


def by_mi(settings, gdb):
    mi = Mi(gdb)
    mi.ask("-gdb-set mi-async on")
    for setup in settings["setupCommands"]:
        text = setup["text"]
        mi.ask(text if text.startswith("-") else "-interpreter-exec console %s" % json.dumps(text))
    mi.ask("-environment-cd %s" % settings["cwd"])
    mi.ask("-file-exec-and-symbols %s" % settings["program"])
    mi.ask("-target-select remote %s" % settings["miDebuggerServerAddress"])
    check(settings["stopAtConnect"], "the editor would let the guest run at once")
    mi.stop()
    mi.ask("-break-insert -f %s" % ROUND)
    threads = mi.ask("-thread-info")
    check('name="vCPU 0"' in threads and 'name="vCPU 1"' in threads, threads)

    mi.ask("-exec-continue")
    stop = mi.stop()
    check('reason="breakpoint-hit"' in stop, stop)
    thread = re.search('thread-id="([0-9]+)"', stop).group(1)
    frames = mi.ask("-stack-list-frames --thread %s 0 20" % thread)
    check('level="0"' in frames and 'func="%s"' % ROUND in frames and 'func="cpu_loop"' in frames, frames)
    check('name="cpu"' in mi.ask("-stack-list-arguments --thread %s 0 0 0" % thread), "no arguments")
    variable = mi.ask('-var-create --thread %s --frame 0 - * "cpu->rounds"' % thread)
    check(re.search('value="[0-9]+"', variable), variable)

    # Another vCPU would hit the breakpoint meanwhile.
    mi.ask("-break-delete 1")
    mi.ask("-exec-next --thread %s" % thread)
    stop = mi.stop()
    check('reason="end-stepping-range"' in stop, stop)
    mi.ask("-exec-continue --all")
    mi.ask("-exec-interrupt --all")
    stop = mi.stop()
    check("SIGINT" in stop, stop)
    mi.ask("-target-detach")
    mi.ask("-gdb-exit")


def main():
    split = sys.argv.index("--")
    page, kind, address, program = sys.argv[1:split]
    adapter = sys.argv[split + 1 :]
    try:
        settings = configuration(page, kind, address, program)
        (by_mi if kind == "cppdbg" else by_dap)(settings, adapter)
    except Wrong as wrong:
        print("editor: wrong: %s" % wrong, flush=True)
        sys.exit(1)
    print("editor: ok", flush=True)


main()

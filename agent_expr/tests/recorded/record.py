"""Records the bytecode that GDB makes of the expressions in expressions.txt, and what GDB itself says their values are.

    python3 record.py GDBSERVER GDB... > recorded.txt

GDBSERVER evaluates nothing: it only takes the packets that GDB sends for a breakpoint. The words of each GDB are a program or a script. The expressions that a GDB cannot
compile are named on standard error. The file is also the script that runs inside GDB.
"""

import json
import os
import re
import subprocess
import sys
import tempfile

FOLDER = os.path.dirname(os.path.abspath(__file__))
BARE = ["-nostdlib", "-static"]
C = ["-g", "-O0", "-fno-pie", "-no-pie", "-fcf-protection=none", "-fno-stack-protector", "-ffreestanding", *BARE]
RUST = ["--edition=2021", "-g", "-Cpanic=abort", "-Coverflow-checks=off", "-Crelocation-model=static"]
LINK = ["-nostartfiles", *BARE, "-Wl,--defsym=rust_eh_personality=0"]
COMPILERS = {".c": ["gcc", *C], ".cc": ["g++", *C], ".rs": ["rustc", *RUST, *(f"-Clink-arg={flag}" for flag in LINK)]}
# GDB's numbers 0 to 23 for x86-64.
REGISTERS = "rax rbx rcx rdx rsi rdi rbp rsp r8 r9 r10 r11 r12 r13 r14 r15 rip eflags cs ss ds es fs gs".split()


def inside_gdb(task):
    """Runs in GDB: writes the facts of one program at one stop to the file `task["result"]`."""
    import gdb

    def run(command):
        return gdb.execute(command, to_string=True)

    def sent(command):
        """The packets that GDB sends during the command."""
        run("set debug remote 1")
        log = run(command)
        # GDB sends a breakpoint when the next one is made; a dprintf would come without its commands at once.
        run("set breakpoint always-inserted on")
        log += run("break *_start")
        run("set debug remote 0")
        return log

    def bytecode(kind, text):
        run("set breakpoint always-inserted off")
        if kind in ("case", "wrong"):
            found = re.search(r"\$Z0,[^#]*;X[0-9a-f]+,([0-9a-f]+)", sent(f"break *$pc if {text}"))
        elif kind == "printf":
            found = re.search(r"\$Z0,[^#]*cmds:[01],X[0-9a-f]+,([0-9a-f]+)", sent(f"dprintf *$pc,{text}"))
        else:
            how = "collect/s" if kind == "string" else "collect"
            with open(task["script"], "w") as script:
                script.write(f"trace *$pc\nactions\n{how} {text}\nend\ntstart\ntstop\n")
            found = re.search(r"\$QTDP:-[^#]*X[0-9A-F]+,([0-9a-f]+)", sent(f"source {task['script']}"))
        return found and found[1]

    def value(kind, text):
        if kind in ("case", "wrong"):
            cast = f"({text}) as i64" if task["program"].endswith(".rs") else f"(long)({text})"
            return int(gdb.parse_and_eval(cast))
        if kind == "printf":
            return run(f"printf {text}").encode().hex()
        if kind == "string":
            return [int(gdb.parse_and_eval(f"(long){text}")), len(gdb.parse_and_eval(text).string()) + 1]
        found = gdb.parse_and_eval(text)
        return [int(found.address), found.type.sizeof]

    for setting in (
        "confirm off",
        "breakpoint condition-evaluation target",
        "dprintf-style agent",
        "sysroot /",
        "debug remote-packet-max-chars unlimited",
    ):
        run(f"set {setting}")
    run(f"target remote | env -i {task['gdbserver']} --once - {task['elf']}")
    run(f"break {task['stop']}")
    run("continue")
    run("delete")
    run("tvariable $hits = 5")
    memory = gdb.selected_inferior()
    stack = int(gdb.parse_and_eval("$rsp" if task["program"].endswith(".rs") else "(long)$rsp")) & ~0xF
    areas = [(stack - 128, 384), *data_of(run("info files"))]
    facts = {
        "registers": [int(gdb.parse_and_eval(f"${name}")) % 2**64 for name in REGISTERS],
        "memory": [(start, memory.read_memory(start, size).tobytes().hex()) for start, size in areas],
        "cases": [],
    }
    for kind, text in task["cases"]:
        try:
            expected, code = value(kind, text), bytecode(kind, text)
            run("delete")
            facts["cases"].append([kind, text, expected, code])
        except gdb.error as error:
            run("delete")
            print(f"{kind} {text}: {error}", file=sys.stderr)
    with open(task["result"], "w") as result:
        json.dump(facts, result)
    run("kill")


def data_of(info):
    """The addresses and sizes of the sections with variables, in the answer to `info files`."""
    lines = re.findall(r"(0x[0-9a-f]+) - (0x[0-9a-f]+) is (\.data|\.bss|\.rodata)\S*$", info, re.M)
    return sorted({(int(start, 16), int(end, 16) - int(start, 16)) for start, end, _ in lines})


def tasks():
    """The stops of expressions.txt, each with its expressions."""
    program = stop = None
    cases = {}
    with open(os.path.join(FOLDER, "expressions.txt")) as lines:
        for line in map(str.rstrip, lines):
            word, _, rest = line.partition(" ")
            if word == "program":
                program = rest
            elif word == "stop":
                stop = rest
            elif word in ("printf", "trace", "string", "wrong"):
                cases.setdefault((program, stop), []).append((word, rest))
            elif word != "#":
                cases.setdefault((program, stop), []).append(("case", line))
    return cases


def place(program, stop):
    """What to give to `break`: the line with the comment, or an address."""
    if stop.startswith("*"):
        return stop
    with open(os.path.join(FOLDER, program)) as lines:
        return next(f"{program}:{number}" for number, line in enumerate(lines, 1) if stop in line)


def main(gdbserver, gdbs):
    print("# Written by record.py. `register` has GDB's number of the register, and numbers are hexadecimal, except in `gives` of a `case`. `gives` of a `printf` is its text; that of")
    print("# a `trace` is an address and a length. `wrong`: GDB makes wrong code of it. `code` ends with the versions of GDB that make this code.")
    with tempfile.TemporaryDirectory() as scratch:
        path = lambda name: os.path.join(scratch, name)
        for (program, stop), cases in tasks().items():
            elf = path(program + ".elf")
            compiler = COMPILERS[os.path.splitext(program)[1]]
            subprocess.run([*compiler, "-o", elf, os.path.join(FOLDER, program)], check=True)
            task = {"program": program, "stop": place(program, stop), "cases": cases, "elf": elf, "gdbserver": gdbserver}
            task |= {name: path(name) for name in ("script", "result")}
            with open(path("task"), "w") as file:
                json.dump(task, file)
            recorded = {}
            for gdb in gdbs:
                version = subprocess.run([gdb, "--version"], capture_output=True, text=True, check=True).stdout
                version = version.splitlines()[0].split()[-1]
                print(f"--- GDB {version}, {program}, {stop}", file=sys.stderr)
                environment = {**os.environ, "RECORD_TASK": path("task")}
                run = [gdb, "-nx", "-batch", "-x", os.path.abspath(__file__), elf]
                subprocess.run(run, env=environment, stdout=subprocess.DEVNULL, check=True)
                with open(path("result")) as result:
                    recorded[version] = json.load(result)
                os.remove(path("result"))
            write(program, stop, recorded)


def write(program, stop, recorded):
    """One stop: the registers and the memory of the first GDB, and each expression with the bytecode of each GDB."""
    first = next(iter(recorded.values()))
    print(f"stop {program} {stop}")
    for number, value in enumerate(first["registers"]):
        print(f"register {number} {value:x}")
    for start, content in first["memory"]:
        print(f"memory {start:x} {content}")
    for version, facts in recorded.items():
        for kind, text, expected, code in facts["cases"]:
            if code is None:
                print(f"GDB {version} does not compile: {kind} {text}", file=sys.stderr)
    for kind, text, expected, _ in first["cases"]:
        codes = {}
        for version, facts in recorded.items():
            for other in facts["cases"]:
                if other[:2] == [kind, text] and other[3]:
                    codes.setdefault(other[3], []).append(version)
        if not codes:
            continue
        print(f"{kind} {text}")
        print("gives", expected if not isinstance(expected, list) else " ".join(f"{number:x}" for number in expected))
        for code, versions in codes.items():
            print("code", code, *versions)


if "RECORD_TASK" in os.environ:
    with open(os.environ["RECORD_TASK"]) as file:
        inside_gdb(json.load(file))
elif __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])

# Sourced by GDB: runs cells of the table and compares what GDB counts with what the guest counts.
#
# The guest counts the rounds of each vCPU in `cpus[N].rounds`. All sites are in front of that increment, so a vCPU passes each site once in
# a round. The values at one site on one vCPU are therefore consecutive numbers. A missing number is a lost hit; a number that occurs twice is a hit that was
# reported twice.
#
# In:  CELLS, a list of dictionaries, and ADDRESS.
# Out: a line `cell NAME: begins`, and later one `cell NAME: ok ...` or lines `cell NAME: wrong ...`.

import gdb
import time

for setting in [
    "pagination off",
    "confirm off",
    "width 0",
    "print thread-events off",
    "tcp connect-timeout 10",
]:
    gdb.execute("set " + setting)
for kind in ["quit yes", "corefile no"]:
    gdb.execute("maint set internal-error " + kind)


class Wrong(Exception):
    pass


def rounds(cpu):
    return int(gdb.parse_and_eval("cpus[%d].rounds" % cpu))


def selected():
    # GDB numbers its threads from 1, in the order of the vCPUs.
    return gdb.selected_thread().num - 1


def round_lines():
    """The lines of do_round() that have code, in the order of their addresses."""
    symbol = gdb.lookup_global_symbol("do_round")
    block = gdb.block_for_pc(int(symbol.value().address))
    entries = sorted(
        (entry.pc, entry.line)
        for entry in symbol.symtab.linetable()
        if block.start <= entry.pc < block.end and entry.line
    )
    lines = []
    for _, line in entries:
        if line not in lines:
            lines.append(line)
    return symbol.symtab.filename.rsplit("/", 1)[1], lines


class Cell:
    def __init__(self, words):
        self.name = words["name"]
        self.vcpus = words["vcpus"]
        self.kind = words["kind"]
        self.action = words["action"]
        self.lock = words["mode"]
        self.rounds = words["rounds"]
        self.seconds = words["seconds"]
        self.sites = []
        # Site's number -> vCPU -> the guest's rounds at each hit.
        self.seen = {}
        # Site's number -> the vCPUs whose hits GDB counts. For a site without an entry GDB counts all vCPUs.
        self.only = {}
        # Breakpoint hits that GDB counts and that this script does not see one by one.
        self.stops = 0

    def see(self, site, cpu):
        self.seen.setdefault(site, {}).setdefault(cpu, []).append(rounds(cpu))

    def run(self):
        gdb.execute("target remote " + ADDRESS)
        gdb.execute("set scheduler-locking " + self.lock)
        file, lines = round_lines()
        # The prologue, the line of the call, the lines behind it, and the increment.
        assert len(lines) >= 7, lines
        self.later = "%s:%d" % (file, lines[4])
        places = ["do_round", "count_primes", "%s:%d" % (file, lines[3]), self.later]
        commands = {
            "software": ["break", "break", "break", "break"],
            # One debug register is left for the action.
            "hardware": ["hbreak", "hbreak", "hbreak"],
            "both": ["break", "hbreak", "break", "hbreak"],
        }[self.kind]
        self.start = [rounds(cpu) for cpu in range(self.vcpus)]
        self.place_sites(list(zip(commands, places)))
        # If only the selected vCPU runs, select one that has a breakpoint.
        self.selectable = range(self.vcpus)
        if self.action == "condition":
            self.selectable = [1]
        elif self.action == "thread":
            self.selectable = sorted(set(cpu for cpus in self.only.values() for cpu in cpus))
        gdb.events.stop.connect(self.stopped)
        done = 0
        end = time.monotonic() + self.seconds
        try:
            while done < self.rounds and (done < 3 or time.monotonic() < end):
                self.turn = done
                if done % 3 == 0:
                    selected = self.selectable[done // 3 % len(self.selectable)]
                    gdb.execute("thread %d" % (selected + 1), to_string=True)
                getattr(self, "do_" + self.action)()
                done += 1
        finally:
            gdb.events.stop.disconnect(self.stopped)
        hits = self.compare()
        gdb.execute("delete")
        gdb.execute("detach")
        return "%d rounds, %d hits" % (done, hits)

    def place_sites(self, places):
        for number, (command, place) in enumerate(places):
            end = ""
            if self.action == "ignore":
                end = " if $seen(%d)" % number
            elif self.action == "condition":
                end = " if $seen(%d) && $_thread == 2" % number
            elif self.action == "thread":
                cpu = number % self.vcpus
                end = " thread %d" % (cpu + 1)
                self.only[number] = [cpu]
            if self.action == "dprintf" and number != 1:
                line = 'dprintf %s,"dprintf %%d\\n", $seen(%d)' % (place, number)
            else:
                line = command + " " + place + end
            text = gdb.execute(line, to_string=True)
            number_of = int(gdb.parse_and_eval("$bpnum"))
            self.sites.append(number_of)
            if self.action == "ignore":
                gdb.execute("ignore %d %d" % (number_of, 2 + number), to_string=True)
            if self.action == "commands":
                gdb.breakpoints()[-1].commands = (
                    "silent\n"
                    "set $printed = $printed + 1\n"
                    'printf "site %d vCPU %%d\\n", $_thread - 1\n'
                    "set $left = $left - 1\n"
                    "if $left > 0\n"
                    "continue\n"
                    "end" % number
                )
        gdb.execute("set $printed = 0")

    def stopped(self, event):
        self.last = event
        if isinstance(event, gdb.SignalEvent):
            print("cell %s: wrong: stopped by %s" % (self.name, event.stop_signal))
            raise gdb.GdbError("unexpected signal")
        if not isinstance(event, gdb.BreakpointEvent):
            return
        for breakpoint in event.breakpoints:
            if breakpoint.is_valid() and breakpoint.number in self.sites:
                self.stops += 1
                if self.action not in ("ignore", "condition"):
                    self.see(self.sites.index(breakpoint.number), selected())

    # The actions at a stop.

    def do_continue(self):
        gdb.execute("continue", to_string=True)

    do_dprintf = do_continue
    do_thread = do_continue
    do_condition = do_continue

    def do_commands(self):
        gdb.execute("set $left = 5")
        gdb.execute("continue", to_string=True)

    def do_tbreak(self):
        hardware = self.kind == "hardware"
        place = ["count_primes", "do_round", self.later, "is_prime"][self.turn % 4]
        gdb.execute("%s %s" % ("thbreak" if hardware else "tbreak", place), to_string=True)
        temporary = int(gdb.parse_and_eval("$bpnum"))
        gdb.execute("continue", to_string=True)
        # A site may come first. There is one debug register for temporary breakpoints.
        for breakpoint in gdb.breakpoints():
            if breakpoint.number == temporary:
                breakpoint.delete()

    def do_ignore(self):
        gdb.execute("continue", to_string=True)
        site = self.turn % len(self.sites)
        gdb.execute("ignore %d %d" % (self.sites[site], 1 + site), to_string=True)

    def do_until(self):
        self.or_continue("until")

    def do_advance(self):
        self.or_continue("advance " + self.later)

    def do_finish(self):
        cpu, before = selected(), rounds(selected())
        inside = gdb.selected_frame().name() in ("is_prime", "count_primes")
        # The caller of the function is in the same round, even if another vCPU stopped the guest.
        if self.or_continue("finish") == "finish" and inside and rounds(cpu) != before:
            raise Wrong("`finish` on vCPU %d ran from the guest's round %d to %d" % (cpu, before, rounds(cpu)))

    def do_next(self):
        self.or_continue("next")

    def do_step(self):
        self.or_continue("step")

    def do_stepi(self):
        self.or_continue("stepi")

    def or_continue(self, command):
        """Where a vCPU stands in code without lines or in its outermost function, some commands mean nothing; GDB says so.

        A KVM that emulates guest code loses a vCPU that is stepped over `hlt`: where that may be next, it goes on.
        """
        if self.turn % 4 == 3 or gdb.selected_frame().name() == "wait_for_tick":
            command = "continue"
        try:
            gdb.execute(command, to_string=True)
        except gdb.error as error:
            told = str(error)
            if "outermost frame" not in told and "Cannot find bounds" not in told:
                raise
            command = "continue"
            gdb.execute(command, to_string=True)
        return command

    # GDB's counts.

    def compare(self):
        wrong = []
        hits = self.hits()
        now = [rounds(cpu) for cpu in range(self.vcpus)]
        total = 0
        for site, number in enumerate(self.sites):
            at_site = self.seen.get(site, {})
            counted = sum(len(values) for values in at_site.values())
            total += counted
            if self.action == "condition":
                counted = len(at_site.get(1, []))
            if hits.get(number, 0) != counted:
                wrong.append("site %d: GDB counts %d hits, %d were seen" % (site, hits.get(number, 0), counted))
            for cpu in self.only.get(site, range(self.vcpus)):
                values = at_site.get(cpu, [])
                # The rounds in which the vCPU was when the cell began, and is now, are in front of the first and behind the last value.
                expected = list(range(values[0], values[0] + len(values))) if values else []
                if values != expected:
                    first = next(at for at in range(len(values)) if values[at] != expected[at])
                    wrong.append(
                        "site %d, vCPU %d: after the guest's round %d came %d (of %d values)"
                        % (site, cpu, values[first - 1], values[first], len(values))
                    )
                    continue
                first, last = (values[0], values[-1]) if values else (self.start[cpu] + 1, self.start[cpu])
                if first > self.start[cpu] + 1 or last < now[cpu] - 1:
                    wrong.append(
                        "site %d, vCPU %d: seen in the rounds %d to %d, and the guest went from %d to %d"
                        % (site, cpu, first, last, self.start[cpu], now[cpu])
                    )
        if self.action == "commands" and int(gdb.parse_and_eval("$printed")) != total:
            wrong.append("commands ran %s times for %d hits" % (gdb.parse_and_eval("$printed"), total))
        if wrong:
            raise Wrong("; ".join(wrong))
        return total

    def hits(self):
        found = {}
        number = None
        for line in gdb.execute("info breakpoints", to_string=True).splitlines():
            words = line.split()
            if words and words[0].isdigit():
                number = int(words[0])
            if line.strip().startswith("breakpoint already hit"):
                found[number] = int(words[3])
        return found


class Seen(gdb.Function):
    """$seen(SITE): records the hit. Always true."""

    def __init__(self):
        super().__init__("seen")

    def invoke(self, site):
        cell.see(int(site), selected())
        return 1


Seen()
for words in CELLS:
    cell = Cell(words)
    print("cell %s: begins" % cell.name, flush=True)
    began = time.monotonic()
    try:
        result = cell.run()
    except Wrong as wrong:
        print("cell %s: wrong: %s" % (cell.name, wrong), flush=True)
        gdb.execute("delete")
        gdb.execute("detach")
        gdb.execute("quit 1")
    except gdb.error as error:
        # GDB may be in a wrong state, so the next cells get another GDB.
        print("cell %s: wrong: GDB says `%s`" % (cell.name, error), flush=True)
        gdb.execute("kill")
        gdb.execute("quit 1")
    else:
        print("cell %s: ok, %s, %.1f s" % (cell.name, result, time.monotonic() - began), flush=True)

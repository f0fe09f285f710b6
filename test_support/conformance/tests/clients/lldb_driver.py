# Imported by LLDB as a script: runs cells of the table and compares what LLDB counts with what the guest counts.
#
# The guest counts the rounds of each vCPU in `cpus[N].rounds`. All sites are in front of that increment, so a vCPU passes each site once in
# a round. The values at one site on one vCPU are therefore consecutive numbers. A missing number is a lost hit. LLDB's own count shows whether a hit was
# reported twice.
#
# In:  CELLS, a list of dictionaries, and ADDRESS.
# Out: a line `cell NAME: begins`, and later one `cell NAME: ok ...` or a line `cell NAME: wrong ...`.

import os
import time

import lldb


class Wrong(Exception):
    pass


def say(text):
    print(text, flush=True)


class Guest:
    """The guest's own counters, read from its memory."""

    def __init__(self, target):
        cpus = target.FindFirstGlobalVariable("cpus")
        first = cpus.GetChildAtIndex(0)
        self.start = cpus.GetLoadAddress()
        self.size = first.GetByteSize()
        self.offset = first.GetChildMemberWithName("rounds").GetLoadAddress() - first.GetLoadAddress()

    def rounds(self, process, cpu):
        error = lldb.SBError()
        value = process.ReadUnsignedFromMemory(self.start + self.size * cpu + self.offset, 8, error)
        if error.Fail():
            raise Wrong("the guest's counter cannot be read: %s" % error)
        return value


class Cell:
    def __init__(self, debugger, words):
        self.debugger = debugger
        self.target = debugger.GetSelectedTarget()
        self.name = words["name"]
        self.vcpus = words["vcpus"]
        self.kind = words["kind"]
        self.action = words["action"]
        self.mode = words["mode"]
        self.rounds_wanted = words["rounds"]
        self.seconds = words["seconds"]
        self.process = None
        self.sites = []
        # Site -> vCPU -> the guest's rounds at each hit.
        self.seen = {}
        # Site -> the vCPUs whose hits LLDB counts. For a site without an entry LLDB counts all vCPUs.
        self.only = {}
        self.left = 0
        # The thread that was resumed alone. None if all threads were resumed.
        self.resumed = None
        # The program counter of each thread when the sites were set.
        self.stood = {}
        # Site -> the threads that have stopped at the site without having moved since.
        self.unmoved = {}

    def command(self, line):
        result = lldb.SBCommandReturnObject()
        # An import keeps the context of its beginning, which has no process.
        place = lldb.SBExecutionContext(self.thread() if self.process else self.target)
        self.debugger.GetCommandInterpreter().HandleCommand(line, place, result)
        if not result.Succeeded():
            raise Wrong("LLDB says to `%s`: %s" % (line, result.GetError().strip()))

    def rounds(self, cpu):
        return self.guest.rounds(self.process, cpu)

    def run(self):
        self.command("gdb-remote " + ADDRESS)
        self.process = self.target.GetProcess()
        self.guest = Guest(self.target)
        self.start = [self.rounds(cpu) for cpu in range(self.vcpus)]
        self.place_sites()
        self.stood = {thread.GetThreadID(): self.standing(thread) for thread in self.process}
        done = 0
        end = time.monotonic() + self.seconds
        while done < self.rounds_wanted and (done < 3 or time.monotonic() < end):
            self.turn = done
            if done % 3 == 0:
                cpus = sorted(set(sum(self.only.values(), []))) or range(self.vcpus)
                self.select(cpus[done // 3 % len(cpus)])
            getattr(self, "do_" + self.action.replace("-", "_"))()
            self.look()
            done += 1
            if done % 50 == 0:
                # Shows that LLDB does not hang.
                say("cell %s: %d rounds so far" % (self.name, done))
        hits = self.compare()
        self.leave()
        return "%d rounds, %d hits" % (done, hits)

    def leave(self):
        self.target.DeleteAllBreakpoints()
        self.command("process detach")

    def places(self):
        """`breakpoint set` of each site: lines of do_round() in the order of their addresses, and the function that it calls."""
        function = self.target.FindFunctions("do_round")[0].GetFunction()
        unit = function.GetStartAddress().GetCompileUnit()
        start, end = function.GetStartAddress().GetFileAddress(), function.GetEndAddress().GetFileAddress()
        entries = sorted(
            (entry.GetStartAddress().GetFileAddress(), entry.GetLine())
            for entry in unit
            if start <= entry.GetStartAddress().GetFileAddress() < end and entry.GetLine()
        )
        lines = []
        for _, line in entries:
            if line not in lines:
                lines.append(line)
        assert len(lines) >= 7, lines
        file = unit.GetFileSpec().GetFilename()
        functions = ["-n do_round", "-n count_primes"]
        if self.action == "step-out":
            # No other breakpoint stops a vCPU that has missed its return.
            return functions
        return functions + ["-f %s -l %d" % (file, line) for line in lines[3:5]]

    def place_sites(self):
        hardware = {
            "software": [False, False, False, False],
            # One debug register is left for the action.
            "hardware": [True, True, True],
            "both": [False, True, False, True],
        }[self.kind]
        for number, (hard, place) in enumerate(zip(hardware, self.places())):
            line = "breakpoint set " + place
            if hard:
                line += " -H"
            if self.action == "condition":
                line += " -c 'cpus_online > 0'"
            elif self.action == "thread":
                cpu = number % self.vcpus
                self.only[number] = [cpu]
                line += " -t %d" % (cpu + 1)
            elif self.action == "ignore":
                line += " -i %d" % (2 + number)
            self.command(line)
            breakpoint = self.target.GetBreakpointAtIndex(self.target.GetNumBreakpoints() - 1)
            if breakpoint.GetNumLocations() != 1:
                raise Wrong("`%s` has %d places" % (line, breakpoint.GetNumLocations()))
            self.sites.append(breakpoint)
            if self.action == "callback":
                error = breakpoint.SetScriptCallbackFunction(MODULE + ".called")
                if error is not None and error.Fail():
                    raise Wrong(str(error))

    def select(self, cpu):
        self.process.SetSelectedThreadByID(cpu + 1)

    def thread(self):
        return self.process.GetSelectedThread()

    def standing(self, thread):
        return thread.GetFrameAtIndex(0).GetPC(), self.rounds(thread.GetThreadID() - 1)

    def see(self, site, cpu):
        values = self.seen.setdefault(site, {}).setdefault(cpu, [])
        now = self.rounds(cpu)
        # A thread that was not resumed keeps its old stop reason.
        if not values or values[-1] != now:
            values.append(now)

    def look(self):
        """Records the hits of all threads."""
        state = self.process.GetState()
        if state != lldb.eStateStopped:
            raise Wrong("the guest is %s" % lldb.SBDebugger.StateAsCString(state))
        numbers = [site.GetID() for site in self.sites]
        for thread in self.process:
            # LLDB 14 may show an old stop reason for a thread that it did not resume. It does not count this hit.
            if self.resumed not in (None, thread.GetThreadID()):
                continue
            reason = thread.GetStopReason()
            if reason in (lldb.eStopReasonSignal, lldb.eStopReasonException):
                raise Wrong("thread %d: %s" % (thread.GetThreadID(), thread.GetStopDescription(100)))
            if reason != lldb.eStopReasonBreakpoint or self.action in ("callback", "ignore"):
                continue
            # LLDB shows a breakpoint hit for a thread that has not moved since LLDB set the breakpoint. LLDB 14 and 19 do not count this hit. LLDB 21
            # counts the hit if the thread was resumed and met the breakpoint.
            unmoved = self.stood.get(thread.GetThreadID()) == self.standing(thread)
            for at in range(0, thread.GetStopReasonDataCount(), 2):
                number = thread.GetStopReasonDataAtIndex(at)
                if number in numbers and unmoved:
                    self.unmoved.setdefault(numbers.index(number), set()).add(thread.GetThreadID())
                elif number in numbers:
                    self.see(numbers.index(number), thread.GetThreadID() - 1)

    # The actions at a stop.

    def do_continue(self):
        self.resumed = None
        if self.mode == "this-thread":
            self.resumed = self.thread().GetThreadID()
            self.command("thread continue %d" % self.thread().GetIndexID())
        else:
            self.command("process continue")

    do_condition = do_continue
    do_thread = do_continue

    def do_callback(self):
        self.left = 5
        self.do_continue()

    def do_one_shot(self):
        before = self.target.GetNumBreakpoints()
        self.command("breakpoint set -o true -n is_prime")
        extra = self.target.GetBreakpointAtIndex(before).GetID()
        self.do_continue()
        # A site may come first.
        self.target.BreakpointDelete(extra)

    def do_ignore(self):
        self.do_continue()
        site = self.turn % len(self.sites)
        self.sites[site].SetIgnoreCount(1 + site)

    def do_step_out(self):
        thread = self.thread()
        cpu = thread.GetThreadID() - 1
        before = self.rounds(cpu)
        inside = thread.GetFrameAtIndex(0).GetFunctionName() in ("is_prime", "count_primes")
        # The caller of the function is in the same round, even if another vCPU stopped the guest.
        if self.step("step-out") and inside and self.rounds(cpu) != before:
            raise Wrong("`thread step-out` on vCPU %d ran from the guest's round %d to %d" % (cpu, before, self.rounds(cpu)))

    def do_step_over(self):
        self.step("step-over")

    def do_step_in(self):
        self.step("step-in")

    def do_step_inst(self):
        self.step("step-inst")

    def step(self, command):
        # A KVM that emulates guest code loses a vCPU that is stepped over `hlt`. If `hlt` may be next, continue instead.
        name = self.thread().GetFrameAtIndex(0).GetFunctionName()
        outermost = command == "step-out" and self.thread().GetNumFrames() < 2
        if self.turn % 4 == 3 or name == "wait_for_tick" or outermost:
            self.do_continue()
            return False
        # A step may run the other threads nevertheless, as `step-out` does.
        self.resumed = None
        self.command("thread %s -m %s" % (command, self.mode))
        return True

    # LLDB's counts.

    def compare(self):
        wrong = []
        now = [self.rounds(cpu) for cpu in range(self.vcpus)]
        total = 0
        for site, breakpoint in enumerate(self.sites):
            at_site = self.seen.get(site, {})
            counted = sum(len(values) for values in at_site.values())
            hits = breakpoint.GetHitCount()
            total += hits
            cpus = self.only.get(site, range(self.vcpus))
            if self.action == "ignore":
                # LLDB counts ignored hits, which this script does not see one by one. Each vCPU may be at the site at the beginning and at the end.
                passed = sum(now[cpu] - self.start[cpu] for cpu in cpus)
                if abs(hits - passed) > len(cpus):
                    wrong.append("site %d: LLDB counts %d hits, the guest %d rounds" % (site, hits, passed))
                continue
            unmoved = len(self.unmoved.get(site, []))
            if not counted <= hits <= counted + unmoved:
                wrong.append("site %d: LLDB counts %d hits, %d were seen, and %d without a move" % (site, hits, counted, unmoved))
            elif hits != counted:
                say("cell %s: LLDB counted a hit without a move at site %d" % (self.name, site))
            for cpu in cpus:
                values = at_site.get(cpu, [])
                expected = list(range(values[0], values[0] + len(values))) if values else []
                if values != expected:
                    first = next(at for at in range(len(values)) if values[at] != expected[at])
                    wrong.append(
                        "site %d, vCPU %d: after the guest's round %d came %d (of %d values)"
                        % (site, cpu, values[first - 1], values[first], len(values))
                    )
                    continue
                # The rounds in which the vCPU was when the cell began, and is now, are in front of the first and behind the last value.
                first, last = (values[0], values[-1]) if values else (self.start[cpu] + 1, self.start[cpu])
                if first > self.start[cpu] + 1 or last < now[cpu] - 1:
                    wrong.append(
                        "site %d, vCPU %d: seen in the rounds %d to %d, and the guest went from %d to %d"
                        % (site, cpu, first, last, self.start[cpu], now[cpu])
                    )
        if wrong:
            raise Wrong("; ".join(wrong))
        return total


def called(frame, location, *rest):
    """A breakpoint's callback: stops at every fifth hit."""
    number = location.GetBreakpoint().GetID()
    cell.see([site.GetID() for site in cell.sites].index(number), frame.GetThread().GetThreadID() - 1)
    cell.left -= 1
    return cell.left <= 0


MODULE = os.path.splitext(os.path.basename(__file__))[0]
cell = None


def __lldb_init_module(debugger, internal_dict):
    global cell
    debugger.SetAsync(False)
    for words in CELLS:
        say("cell %s: begins" % words["name"])
        began = time.monotonic()
        cell = Cell(debugger, words)
        try:
            result = cell.run()
        except Wrong as wrong:
            say("cell %s: wrong: %s" % (cell.name, wrong))
            # LLDB may be in a wrong state, so the next cells get another LLDB.
            cell.leave()
            os._exit(1)
        say("cell %s: ok, %s, %.1f s" % (cell.name, result, time.monotonic() - began))

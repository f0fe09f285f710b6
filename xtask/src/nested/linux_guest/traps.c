// A process that debugs: it traps itself, and another by ptrace, each so many times.
//
// Each round ends with a line that tells how many traps of each kind came; one too many or too few, at another address or of another kind, ends it.

#include "calls.h"
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/ptrace.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <ucontext.h>

#define INT3S 100
#define ICEBPS 20
#define FLAGS_ROUNDS 5
#define FLAGS_STEPS 9
#define WRITES 40
#define CALLS 20
#define POKES 10
#define STEPS 50

// Labels in the assembly below.
extern char after_int3[], after_icebp[], flag_on[], flag_off[], child_function[];

// By vector: where each trap has to be, and how many came.
static volatile unsigned seen[2];
static volatile uintptr_t steps_from, steps_to;

static void on_trap(int number, siginfo_t *info, void *context)
{
    ucontext_t *machine = context;
    uintptr_t at = machine->uc_mcontext.gregs[REG_RIP];
    (void)number;
    switch (machine->uc_mcontext.gregs[REG_TRAPNO]) {
    case 3:
        CHECK(at == (uintptr_t)after_int3);
        seen[0]++;
        break;
    case 1:
        if (at != (uintptr_t)after_icebp && !(at >= steps_from && at <= steps_to))
            say("exercise: WRONG #DB at %#lx, si_code %d", (unsigned long)at, info->si_code);
        CHECK(at == (uintptr_t)after_icebp || (at >= steps_from && at <= steps_to));
        seen[1]++;
        break;
    default:
        CHECK(!"a trap of vector 1 or 3");
    }
}

__attribute__((noinline)) static void int3(void)
{
    asm volatile("int3\n.globl after_int3\nafter_int3:" ::: "memory");
}

__attribute__((noinline)) static void icebp(void)
{
    asm volatile(".byte 0xf1\n.globl after_icebp\nafter_icebp:" ::: "memory");
}

// The instruction after the `popf` that sets TF is the first to trap; the one that clears it traps no more, as TF is looked at before it.
__attribute__((noinline)) static void step_by_flag(void)
{
    asm volatile("sub $128, %%rsp\n"
                 "pushf\norq $0x100, (%%rsp)\npopf\n"
                 ".globl flag_on\nflag_on:\n"
                 "nop\nnop\nmov %%rax, %%rax\nnop\nnop\n"
                 "pushf\nandq $~0x100, (%%rsp)\nnop\npopf\n"
                 ".globl flag_off\nflag_off:\n"
                 "add $128, %%rsp" ::: "memory", "cc");
}

static volatile long watched;

asm(".globl child_function\nchild_function:\n\tnop\n\tret");
void child_function_call(void) asm("child_function");

static void child(void)
{
    ptrace(PTRACE_TRACEME, 0, 0, 0);
    raise(SIGSTOP);
    for (;;) {
        watched++;
        child_function_call();
    }
}

static long peek_register(pid_t process, size_t offset)
{
    errno = 0;
    long value = ptrace(PTRACE_PEEKUSER, process, offset, 0);
    CHECK(errno == 0);
    return value;
}

static void poke_register(pid_t process, size_t offset, long value)
{
    CHECK(ptrace(PTRACE_POKEUSER, process, offset, value) == 0);
}

#define RIP offsetof(struct user, regs.rip)
#define DR(number) (offsetof(struct user, u_debugreg) + 8 * (number))

static void stopped(pid_t process, int by)
{
    int status;
    CHECK(waitpid(process, &status, 0) == process);
    CHECK(WIFSTOPPED(status) && WSTOPSIG(status) == by);
}

static void go(pid_t process, int request)
{
    CHECK(ptrace(request, process, 0, 0) == 0);
    stopped(process, SIGTRAP);
}

static void debug_child(void)
{
    pid_t process = fork();
    CHECK(process >= 0);
    if (process == 0)
        child();
    stopped(process, SIGSTOP);

    // DR0: writes of 8 bytes (R/W = 01b, LEN = 10b). A trap comes after its write.
    poke_register(process, DR(0), (long)&watched);
    poke_register(process, DR(7), 1 | 9 << 16);
    for (long turn = 1; turn <= WRITES; turn++) {
        go(process, PTRACE_CONT);
        CHECK(ptrace(PTRACE_PEEKDATA, process, &watched, 0) == turn);
        CHECK((peek_register(process, DR(6)) & 0xf) == 1);
        poke_register(process, DR(6), 0);
    }
    // DR3: execution, hit before the instruction; DR0 off again.
    poke_register(process, DR(7), 0);
    poke_register(process, DR(3), (long)child_function);
    poke_register(process, DR(7), 1 << 6);
    for (int turn = 0; turn < CALLS; turn++) {
        go(process, PTRACE_CONT);
        CHECK(peek_register(process, RIP) == (long)child_function);
        CHECK((peek_register(process, DR(6)) & 0xf) == 8);
        poke_register(process, DR(6), 0);
    }
    poke_register(process, DR(7), 0);

    // A byte in its code, as a debugger's breakpoint is.
    long code = ptrace(PTRACE_PEEKTEXT, process, child_function, 0);
    for (int turn = 0; turn < POKES; turn++) {
        CHECK(ptrace(PTRACE_POKETEXT, process, child_function, (code & ~0xffL) | 0xcc) == 0);
        go(process, PTRACE_CONT);
        CHECK(peek_register(process, RIP) == (long)child_function + 1);
        CHECK(ptrace(PTRACE_POKETEXT, process, child_function, code) == 0);
        poke_register(process, RIP, (long)child_function);
        go(process, PTRACE_SINGLESTEP);
        CHECK(peek_register(process, RIP) == (long)child_function + 1);
    }

    // Steps: each goes on by one instruction, so the function is entered again and again.
    int entered = 0;
    for (int turn = 0; turn < STEPS; turn++) {
        long from = peek_register(process, RIP);
        go(process, PTRACE_SINGLESTEP);
        long at = peek_register(process, RIP);
        CHECK(at != from);
        entered += at == (long)child_function;
    }
    CHECK(entered >= 2);

    int status;
    CHECK(kill(process, SIGKILL) == 0 && waitpid(process, &status, 0) == process);
}

void traps(unsigned round)
{
    if (round == 1) {
        struct sigaction action = {.sa_sigaction = on_trap, .sa_flags = SA_SIGINFO};
        CHECK(sigaction(SIGTRAP, &action, NULL) == 0);
        say("exercise: int3 at %#lx", (unsigned long)after_int3 - 1);
    }
    seen[0] = seen[1] = 0;
    for (int turn = 0; turn < INT3S; turn++)
        int3();
    if (seen[0] != INT3S || seen[1])
        say("exercise: WRONG traps %u: %u of vector 3, %u of vector 1 by %u INT3", round, seen[0], seen[1], INT3S);
    CHECK(seen[0] == INT3S && seen[1] == 0);
    for (int turn = 0; turn < ICEBPS; turn++)
        icebp();
    CHECK(seen[0] == INT3S && seen[1] == ICEBPS);
    steps_from = (uintptr_t)flag_on;
    steps_to = (uintptr_t)flag_off;
    for (int turn = 1; turn <= FLAGS_ROUNDS; turn++) {
        step_by_flag();
        CHECK(seen[1] == (unsigned)(ICEBPS + turn * FLAGS_STEPS));
    }
    steps_to = 0;
    unsigned flags = seen[1] - ICEBPS;
    debug_child();
    say("exercise: traps %u right: int3 %u icebp %u flag %u watch %d exec %d poke %d step %d", round, seen[0], seen[1] - flags, flags, WRITES, CALLS, POKES, STEPS);
}

// System calls that are counted, and results that are checked.

#define _GNU_SOURCE
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

// How often this process, or a child of its own that it answers for, made each system call since the last report.
extern unsigned counts[512];

// A system call past the C library, which would make some of its own.
#define CALL(name, ...) \
    (counts[SYS_##name]++, syscall(SYS_##name __VA_OPT__(, ) __VA_ARGS__))

// Writes one line to the console and ends the program: a result is not what it has to be.
__attribute__((noreturn)) void wrong(const char *file, int line, const char *what);

#define CHECK(condition) \
    do { \
        if (!(condition)) \
            wrong(__FILE__, __LINE__, #condition); \
    } while (0)

// Writes a line to the console.
void say(const char *format, ...) __attribute__((format(printf, 1, 2)));

// What a round's number is added to, for a `getpgid` that finds nobody: a mark that a debugger sees as well.
#define MARK 1000000

// One round of each kind of exercise.
void calls(unsigned round);
void clocks(unsigned round);
void traps(unsigned round);

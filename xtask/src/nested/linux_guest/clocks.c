// How far the clocks go while a debugger holds the guest.
//
// Each round reads them before its mark and after it, and tells the differences in microseconds, and the guest's age in milliseconds. What the
// kernel said meanwhile comes as lines of its own: what it writes to the console itself may fall into the middle of a line.

#include "calls.h"
#include <time.h>

static long long microseconds(int clock)
{
    struct timespec now;
    CHECK(CALL(clock_gettime, clock, &now) == 0);
    return now.tv_sec * 1000000LL + now.tv_nsec / 1000;
}

// What klogctl(3) calls them.
enum { READ_CLEAR = 4, CLEAR = 5 };

static void tell_of_the_kernel(unsigned round)
{
    static char log[1 << 14];
    if (round == 1)
        CHECK(CALL(syslog, CLEAR, NULL, 0) == 0);
    long length = CALL(syslog, READ_CLEAR, log, sizeof log - 1);
    CHECK(length >= 0);
    log[length] = 0;
    for (char *line = strtok(log, "\n"); line; line = strtok(NULL, "\n"))
        say("exercise: kernel %s", line);
}

void clocks(unsigned round)
{
    static const int all[] = {CLOCK_MONOTONIC, CLOCK_REALTIME, CLOCK_BOOTTIME};
    const struct timespec pause = {.tv_nsec = 20 * 1000 * 1000};
    long long passed[3];
    for (int clock = 0; clock < 3; clock++)
        passed[clock] = -microseconds(all[clock]);
    CHECK(CALL(getpgid, MARK + round) == -1 && errno == ESRCH);
    for (int clock = 0; clock < 3; clock++)
        passed[clock] += microseconds(all[clock]);
    say("exercise: clocks %u monotonic %lld realtime %lld boottime %lld at %lld",
        round, passed[0], passed[1], passed[2], microseconds(CLOCK_MONOTONIC) / 1000);
    tell_of_the_kernel(round);
    CHECK(CALL(nanosleep, &pause, NULL) == 0);
}

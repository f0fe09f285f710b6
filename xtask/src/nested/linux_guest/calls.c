// Many kinds of system calls with results that are known.
//
// Each round ends with its mark. The line after it tells how often each system call was made since the mark before, as `NUMBER=TIMES`.

#include "calls.h"
#include <fcntl.h>
#include <linux/futex.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/sysinfo.h>
#include <sys/time.h>
#include <sys/timerfd.h>
#include <sys/times.h>
#include <sys/uio.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <time.h>

#define SIZE 300

static unsigned char pattern(unsigned round, unsigned index)
{
    return (unsigned char)(round * 31 + index * 7);
}

static void fill(unsigned char *bytes, unsigned round)
{
    for (unsigned index = 0; index < SIZE; index++)
        bytes[index] = pattern(round, index);
}

static void files(unsigned round)
{
    unsigned char bytes[SIZE], back[SIZE] = {0};
    struct stat status;
    struct statfs system;
    fill(bytes, round);
    CHECK(CALL(mkdir, "/tmp/d", 0755) == 0);
    CHECK(CALL(chdir, "/tmp/d") == 0);
    CHECK(CALL(getcwd, back, sizeof back) == 7 && strcmp((char *)back, "/tmp/d") == 0);
    int fd = CALL(openat, AT_FDCWD, "f", O_RDWR | O_CREAT | O_EXCL, 0600);
    CHECK(fd >= 0);
    for (int part = 0; part < 3; part++)
        CHECK(CALL(write, fd, bytes + part * 100, 100) == 100);
    CHECK(CALL(lseek, fd, 0, SEEK_SET) == 0);
    CHECK(CALL(read, fd, back, SIZE) == SIZE && memcmp(back, bytes, SIZE) == 0);
    CHECK(CALL(pwrite64, fd, "abc", 3, 50L) == 3);
    CHECK(CALL(pread64, fd, back, 5, 49L) == 5 && memcmp(back + 1, "abc", 3) == 0);
    struct iovec pieces[2] = {{back, 2}, {back + 2, 4}};
    CHECK(CALL(lseek, fd, 49, SEEK_SET) == 49);
    CHECK(CALL(readv, fd, pieces, 2) == 6 && memcmp(back + 1, "abc", 3) == 0);
    CHECK(CALL(writev, fd, pieces, 2) == 6);
    CHECK(CALL(fstat, fd, &status) == 0 && status.st_size == SIZE);
    CHECK(CALL(ftruncate, fd, 77) == 0);
    CHECK(CALL(stat, "f", &status) == 0 && status.st_size == 77);
    CHECK(CALL(truncate, "f", 33) == 0);
    CHECK(CALL(lstat, "f", &status) == 0 && status.st_size == 33);
    CHECK(CALL(newfstatat, AT_FDCWD, "f", &status, 0) == 0 && status.st_size == 33);
    CHECK(CALL(fsync, fd) == 0);
    CHECK(CALL(flock, fd, LOCK_EX) == 0);
    CHECK((CALL(fcntl, fd, F_GETFL) & O_ACCMODE) == O_RDWR);
    int second = CALL(dup, fd), third = CALL(dup3, fd, 99, O_CLOEXEC);
    CHECK(second >= 0 && third == 99);
    CHECK(CALL(close, second) == 0 && CALL(close, third) == 0 && CALL(close, fd) == 0);
    CHECK(CALL(close, fd) == -1 && errno == EBADF);
    CHECK(CALL(chmod, "f", 0640) == 0 && CALL(access, "f", R_OK) == 0);
    CHECK(CALL(link, "f", "g") == 0 && CALL(rename, "g", "h") == 0);
    CHECK(CALL(symlink, "h", "s") == 0 && CALL(readlink, "s", back, SIZE) == 1 && back[0] == 'h');
    CHECK(CALL(statfs, "/tmp", &system) == 0);
    int folder = CALL(open, ".", O_RDONLY | O_DIRECTORY);
    CHECK(folder >= 0 && CALL(getdents64, folder, back, sizeof back) >= 24 * 5);
    CHECK(CALL(close, folder) == 0);
    CHECK(CALL(unlink, "f") == 0 && CALL(unlink, "s") == 0 && CALL(unlinkat, AT_FDCWD, "h", 0) == 0);
    CHECK(CALL(access, "f", R_OK) == -1 && errno == ENOENT);
    CHECK(CALL(chdir, "/") == 0 && CALL(rmdir, "/tmp/d") == 0);
    CHECK(CALL(umask, 022) >= 0 && CALL(umask, 022) == 022);
}

static void memory(unsigned round)
{
    char resident[4];
    volatile char *pages = (char *)CALL(mmap, 0, 0x4000L, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0L);
    CHECK(pages != MAP_FAILED);
    for (int page = 0; page < 4; page++)
        pages[page * 0x1000] = (char)(round + page);
    CHECK(CALL(mincore, pages, 0x4000L, resident) == 0 && resident[3] == 1);
    CHECK(CALL(mprotect, pages, 0x1000L, PROT_READ) == 0);
    CHECK(pages[0] == (char)round);
    CHECK(CALL(madvise, pages + 0x1000, 0x1000L, MADV_DONTNEED) == 0 && pages[0x1000] == 0);
    CHECK(CALL(msync, pages, 0x4000L, MS_SYNC) == 0);
    pages = (char *)CALL(mremap, pages + 0x2000, 0x2000L, 0x8000L, MREMAP_MAYMOVE);
    CHECK(pages != MAP_FAILED && pages[0x1000] == (char)(round + 3));
    CHECK(CALL(munmap, pages, 0x8000L) == 0);
    CHECK(CALL(brk, 0L) > 0);
}

static void ids(void)
{
    struct rlimit limit;
    struct rusage usage;
    struct tms spent;
    struct sysinfo facts;
    struct utsname names;
    struct timeval day;
    struct timespec now, later;
    unsigned cpu;
    cpu_set_t cpus;
    char random[16];
    for (int turn = 0; turn < 5; turn++) {
        CHECK(CALL(getpid) == CALL(gettid));
        CHECK(CALL(getuid) == 0 && CALL(geteuid) == 0 && CALL(getgid) == 0 && CALL(getegid) == 0);
        CHECK(CALL(getppid) > 0);
    }
    CHECK(CALL(getpgrp) >= 0 && CALL(getsid, 0) >= 0 && CALL(getgroups, 0, NULL) >= 0);
    CHECK(CALL(getpriority, PRIO_PROCESS, 0) == 20);
    CHECK(CALL(getrlimit, RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur > 99);
    CHECK(CALL(prlimit64, 0, RLIMIT_NOFILE, NULL, &limit) == 0);
    CHECK(CALL(getrusage, RUSAGE_SELF, &usage) == 0 && CALL(times, &spent) > 0);
    CHECK(CALL(sysinfo, &facts) == 0 && facts.totalram > 0);
    CHECK(CALL(uname, &names) == 0 && strcmp(names.sysname, "Linux") == 0);
    CHECK(CALL(time, NULL) > 0 && CALL(gettimeofday, &day, NULL) == 0);
    CHECK(CALL(clock_gettime, CLOCK_MONOTONIC, &now) == 0 && CALL(clock_getres, CLOCK_MONOTONIC, &later) == 0);
    CHECK(CALL(sched_yield) == 0);
    CHECK(CALL(clock_gettime, CLOCK_MONOTONIC, &later) == 0);
    CHECK(later.tv_sec > now.tv_sec || (later.tv_sec == now.tv_sec && later.tv_nsec >= now.tv_nsec));
    CHECK(CALL(sched_getaffinity, 0, sizeof cpus, &cpus) > 0 && CALL(getcpu, &cpu, NULL, NULL) == 0 && cpu == 0);
    CHECK(CALL(getrandom, random, sizeof random, 0) == sizeof random);
}

static void pipes(unsigned round)
{
    unsigned char bytes[SIZE], back[SIZE];
    int ends[2], waiting = 0;
    fill(bytes, round);
    CHECK(CALL(pipe2, ends, O_NONBLOCK) == 0);
    CHECK(CALL(read, ends[0], back, SIZE) == -1 && errno == EAGAIN);
    CHECK(CALL(write, ends[1], bytes, SIZE) == SIZE);
    CHECK(CALL(ioctl, ends[0], FIONREAD, &waiting) == 0 && waiting == SIZE);
    struct pollfd ready = {.fd = ends[0], .events = POLLIN};
    CHECK(CALL(poll, &ready, 1, 0) == 1 && ready.revents == POLLIN);
    int epoll = CALL(epoll_create1, 0);
    struct epoll_event event = {.events = EPOLLIN, .data.u32 = round};
    CHECK(epoll >= 0 && CALL(epoll_ctl, epoll, EPOLL_CTL_ADD, ends[0], &event) == 0);
    event.data.u32 = 0;
    CHECK(CALL(epoll_wait, epoll, &event, 1, 0) == 1 && event.data.u32 == round);
    CHECK(CALL(read, ends[0], back, SIZE) == SIZE && memcmp(back, bytes, SIZE) == 0);
    CHECK(CALL(close, epoll) == 0 && CALL(close, ends[0]) == 0 && CALL(close, ends[1]) == 0);

    unsigned long long number = round, got = 0;
    int events = CALL(eventfd2, 0, 0);
    CHECK(events >= 0 && CALL(write, events, &number, 8) == 8 && CALL(read, events, &got, 8) == 8 && got == round);
    int timer = CALL(timerfd_create, CLOCK_MONOTONIC, 0);
    struct itimerspec once = {.it_value.tv_nsec = 1};
    CHECK(timer >= 0 && CALL(timerfd_settime, timer, 0, &once, NULL) == 0);
    CHECK(CALL(read, timer, &got, 8) == 8 && got == 1);
    int file = CALL(memfd_create, "m", 0);
    CHECK(file >= 0 && CALL(write, file, bytes, SIZE) == SIZE && CALL(lseek, file, 0, SEEK_END) == SIZE);
    CHECK(CALL(close, events) == 0 && CALL(close, timer) == 0 && CALL(close, file) == 0);

    CHECK(CALL(socketpair, AF_UNIX, SOCK_STREAM, 0, ends) == 0);
    CHECK(CALL(sendto, ends[0], bytes, SIZE, 0, NULL, 0) == SIZE);
    CHECK(CALL(recvfrom, ends[1], back, SIZE, 0, NULL, NULL) == SIZE && memcmp(back, bytes, SIZE) == 0);
    CHECK(CALL(shutdown, ends[0], SHUT_WR) == 0 && CALL(read, ends[1], back, SIZE) == 0);
    CHECK(CALL(close, ends[0]) == 0 && CALL(close, ends[1]) == 0);
    int word = 0;
    CHECK(CALL(futex, &word, FUTEX_WAKE, 1, NULL, NULL, 0) == 0);
}

static volatile sig_atomic_t signals;

static void on_signal(int number)
{
    (void)number;
    signals++;
}

static void processes(unsigned round)
{
    int ends[2], status = 0;
    unsigned got = 0;
    unsigned long mask = 0;
    struct itimerval interval;
    if (round == 1)
        signal(SIGUSR1, on_signal);
    signals = 0;
    CHECK(CALL(rt_sigprocmask, SIG_BLOCK, NULL, &mask, 8) == 0);
    for (int turn = 1; turn <= 5; turn++) {
        CHECK(CALL(kill, CALL(getpid), SIGUSR1) == 0 && signals == turn);
        counts[SYS_rt_sigreturn]++;
    }
    CHECK(CALL(rt_sigpending, &mask, 8) == 0 && mask == 0);
    CHECK(CALL(alarm, 0) == 0 && CALL(getitimer, ITIMER_REAL, &interval) == 0);

    CHECK(CALL(pipe2, ends, 0) == 0);
    long child = CALL(fork);
    CHECK(child >= 0);
    if (child == 0) {
        got = round * 3;
        CALL(write, ends[1], &got, sizeof got);
        CALL(exit_group, 7);
    }
    counts[SYS_write]++;
    counts[SYS_exit_group]++;
    CHECK(CALL(read, ends[0], &got, sizeof got) == sizeof got && got == round * 3);
    CHECK(CALL(wait4, child, &status, 0, NULL) == child && WIFEXITED(status) && WEXITSTATUS(status) == 7);
    CHECK(CALL(close, ends[0]) == 0 && CALL(close, ends[1]) == 0);
}

void calls(unsigned round)
{
    files(round);
    memory(round);
    ids();
    pipes(round);
    processes(round);
    CHECK(CALL(getpgid, MARK + round) == -1 && errno == ESRCH);

    char text[1536];
    int length = 0;
    for (unsigned number = 0; number < sizeof counts / sizeof counts[0]; number++)
        if (counts[number] && length < (int)sizeof text - 32)
            length += sprintf(text + length, " %u=%u", number, counts[number]);
    memset(counts, 0, sizeof counts);
    say("exercise: calls %u right:%s", round, text);
}

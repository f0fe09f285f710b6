// What a Linux guest does while it is debugged: rounds of one kind, a line on the console after each, until the machine ends.

#include "calls.h"

unsigned counts[512];

void say(const char *format, ...)
{
    char line[2048];
    va_list values;
    va_start(values, format);
    int length = vsnprintf(line, sizeof line - 1, format, values);
    va_end(values);
    if (length > (int)sizeof line - 2)
        length = sizeof line - 2;
    line[length] = '\n';
    CALL(write, 1, line, length + 1);
}

void wrong(const char *file, int line, const char *what)
{
    say("exercise: WRONG %s:%d: %s (errno %d)", file, line, what, errno);
    exit(1);
}

int main(int count, char **words)
{
    void (*round)(unsigned) = NULL;
    if (count == 2 && strcmp(words[1], "calls") == 0)
        round = calls;
    if (count == 2 && strcmp(words[1], "clocks") == 0)
        round = clocks;
    if (count == 2 && strcmp(words[1], "traps") == 0)
        round = traps;
    if (!round) {
        say("exercise: WRONG usage: exercise calls|clocks|traps");
        return 2;
    }
    for (unsigned number = 1;; number++)
        round(number);
}

/*
 * A worker of the benchmarks in C: remctl-loop ACTION own|plain
 *
 * Reads "prepare", "go COUNT" and "quit" from standard input; answers "ready",
 * and "SECONDS CPU-SECONDS" for each go.  See benchmarks/peers/worker.py.
 */
#include "loop.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <sys/resource.h>
#include <time.h>

void
fail(const char *format, ...)
{
    va_list arguments;

    printf("failed ");
    va_start(arguments, format);
    vprintf(format, arguments);
    va_end(arguments);
    printf("\n");
    exit(1);
}

static double
now(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double) time.tv_sec + (double) time.tv_nsec / 1e9;
}

static double
cpu(void)
{
    struct rusage usage;

    getrusage(RUSAGE_SELF, &usage);
    return (double) (usage.ru_utime.tv_sec + usage.ru_stime.tv_sec)
           + (double) (usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

static const struct action *
find_action(const char *name)
{
    const struct action *action;

    for (action = actions; action->name != NULL; action++)
        if (strcmp(action->name, name) == 0)
            return action;
    fail("no action %s", name);
}

int
main(int argc, char **argv)
{
    const struct action *action;
    char line[64];
    double start, start_cpu;

    setvbuf(stdout, NULL, _IOLBF, 0);
    if (argc != 3)
        fail("usage: remctl-loop ACTION own|plain");
    action = find_action(argv[1]);
    own_socket = strcmp(argv[2], "own") == 0;
    while (fgets(line, sizeof(line), stdin) != NULL) {
        if (strcmp(line, "prepare\n") == 0) {
            action->prepare();
            printf("ready\n");
        } else if (strncmp(line, "go ", 3) == 0) {
            start = now();
            start_cpu = cpu();
            action->go(atol(line + 3));
            printf("%.9f %.9f\n", now() - start, cpu() - start_cpu);
        } else
            break;
    }
    return 0;
}

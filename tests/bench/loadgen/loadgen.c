/* A load generator for HTTPS APIs and for gRPC: `clients` connections, each with one request in flight.
 *
 * The description comes by standard input (spec.h). In the closed loop every client asks again as soon as it was
 * answered. The warming up ends when each was answered once; what is answered from then on counts, and one line of JSON
 * says how many, how long they took, and how much processor time this program itself used. With `every_us` one request
 * is begun at each tick on a client that is free, every answer is a line `BEGUN_NS ANSWERED_NS RESULT TARGET` (on
 * CLOCK_MONOTONIC; RESULT 0 is success, -1 a connection that broke or was given up after a second), and the program
 * ends when its standard input does.
 */
#define _GNU_SOURCE
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "conn.h"

#define REOPEN_NS 20000000
#define PATIENCE_NS 1000000000 /* after which a traced request is given up, with its connection */
#define SLOW_START_NS 10000000000 /* how long the warming up goes on for clients that were not answered yet */
#define MAX_KINDS 16

static struct spec spec;
static struct conn *conns;
static int64_t asked, measure_from = INT64_MAX, measure_until = INT64_MAX;
static int unseen; /* clients that were not answered yet */
static uint32_t *latencies_us;
static size_t answered, room;
static struct {
    int result;
    long count;
} kinds[MAX_KINDS];
static long failures;

static int64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static double cpu_s(void) {
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
           (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

static void ask(struct conn *conn) {
    int64_t number = asked * spec.step;
    asked++;
    conn->began_ns = now_ns();
    conn_request(conn, spec.first + (spec.modulo ? number % spec.modulo : number));
}

void conn_ready(struct conn *conn) {
    if (!spec.every_ns) ask(conn);
}

void conn_answered(struct conn *conn, int result) {
    int64_t now = now_ns();
    if (spec.every_ns) {
        printf("%lld %lld %d %d\n", (long long)conn->began_ns, (long long)now, result, conn->target);
        fflush(stdout);
        return;
    }
    if (!conn->seen) {
        conn->seen = 1;
        unseen--;
    }
    if (now >= measure_from && now < measure_until) {
        if (result == DONE_OK) {
            if (answered == room) latencies_us = realloc(latencies_us, (room = room ? 2 * room : 65536) * sizeof(uint32_t));
            latencies_us[answered++] = (uint32_t)((now - conn->began_ns) / 1000);
        } else {
            failures++;
            for (int i = 0; i < MAX_KINDS; i++) {
                if (kinds[i].count && kinds[i].result != result) continue;
                kinds[i].result = result;
                kinds[i].count++;
                break;
            }
        }
    }
    if (conn->state == IDLE) ask(conn);
}

void conn_broken(struct conn *conn) { conn->reopen_ns = now_ns() + REOPEN_NS; }

static int by_value(const void *left, const void *right) {
    uint32_t a = *(const uint32_t *)left, b = *(const uint32_t *)right;
    return (a > b) - (a < b);
}

static double quantile_ms(double q) {
    if (!answered) return 0;
    size_t at = (size_t)(q * (double)answered);
    return latencies_us[at < answered ? at : answered - 1] / 1000.0;
}

static void report(double used_s) {
    qsort(latencies_us, answered, sizeof *latencies_us, by_value);
    double seconds = (double)spec.run_ns / 1e9, sum = 0;
    for (size_t i = 0; i < answered; i++) sum += latencies_us[i] / 1000.0;
    printf("{\"answered\": %zu, \"failed\": %ld, \"seconds\": %.3f, \"per_s\": %.1f, \"mean_ms\": %.3f, \"p50_ms\": %.3f, "
           "\"p99_ms\": %.3f, \"max_ms\": %.3f, \"loadgen_core\": %.3f, \"asked\": %lld, \"failures\": {",
           answered, failures, seconds, (double)answered / seconds, answered ? sum / (double)answered : 0, quantile_ms(0.5),
           quantile_ms(0.99), quantile_ms(1), used_s / seconds, (long long)asked);
    for (int i = 0; i < MAX_KINDS && kinds[i].count; i++)
        printf("%s\"%d\": %ld", i ? ", " : "", kinds[i].result, kinds[i].count);
    puts("}}");
}

/* Begin a request on a client that is free, taking the targets in turn. */
static void tick(void) {
    static int turn;
    for (int i = 0; i < spec.clients; i++) {
        struct conn *conn = &conns[(turn + i) % spec.clients];
        if (conn->state != IDLE) continue;
        turn = conn->index + 1;
        ask(conn);
        conn_event(conn);
        return;
    }
}

int main(void) {
    signal(SIGPIPE, SIG_IGN);
    setvbuf(stdin, NULL, _IONBF, 0);
    spec_read(&spec);
    SSL_CTX *context = conn_context(&spec);
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    if (spec.every_ns) {
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
        epoll_ctl(epoll, EPOLL_CTL_ADD, STDIN_FILENO, &event);
    }
    conns = calloc((size_t)spec.clients, sizeof *conns);
    for (int i = 0; i < spec.clients; i++) {
        conns[i] = (struct conn){.spec = &spec, .index = i, .target = i % spec.target_count, .epoll = epoll};
        conn_open(&conns[i], context);
    }
    int64_t start = now_ns(), next_tick = start;
    unseen = spec.clients;
    double used_before = 0;
    for (;;) {
        int64_t now = now_ns();
        if (!spec.every_ns && now >= measure_until) break;
        int warm = now >= start + spec.warm_ns && (!unseen || now >= start + spec.warm_ns + SLOW_START_NS);
        if (warm && measure_from == INT64_MAX) {
            measure_from = now;
            measure_until = now + spec.run_ns;
            used_before = cpu_s();
        }
        struct epoll_event events[256];
        int timeout_ms = spec.every_ns ? (int)((next_tick - now) / 1000000) : 5;
        int count = epoll_wait(epoll, events, 256, timeout_ms < 0 ? 0 : timeout_ms);
        for (int i = 0; i < count; i++) {
            if (events[i].data.ptr) {
                conn_event(events[i].data.ptr);
                continue;
            }
            char byte;
            if (read(STDIN_FILENO, &byte, 1) <= 0) return 0;
        }
        now = now_ns();
        for (int i = 0; i < spec.clients; i++)
            if (conns[i].state == CLOSED && now >= conns[i].reopen_ns) conn_open(&conns[i], context);
            else if (spec.every_ns && conns[i].state == BUSY && now - conns[i].began_ns > PATIENCE_NS) conn_close(&conns[i]);
        if (spec.every_ns && now >= next_tick) {
            tick();
            next_tick += spec.every_ns;
        }
    }
    report(cpu_s() - used_before);
    return 0;
}

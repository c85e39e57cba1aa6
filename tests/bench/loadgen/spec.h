/* What to ask, of whom and how often: read from standard input, one `key value` per line, up to a line `end`. */
#ifndef SPEC_H
#define SPEC_H

#include <stddef.h>
#include <stdint.h>

#define NUMBER_DIGITS 10 /* A run of this many '#' in the path or the body is replaced by a number. */

struct target {
    char *host, *port;
};

/* Bytes with holes for numbers; hole i gets `number + i % step`. */
struct form {
    char *bytes;
    size_t size;
    size_t *holes;
    size_t hole_count;
};

struct spec {
    int grpc; /* HTTP/2 with gRPC framing, else HTTP/1.1 */
    struct target *targets;
    int target_count;
    char *ca;
    int clients;
    int64_t warm_ns, run_ns;
    int64_t every_ns; /* 0: each client asks again at once; else one request is begun this often, and all are traced */
    int64_t first, step, modulo;
    char *path;
    char **header_names, **header_values;
    int header_count;
    char *forbid; /* an answer that holds this is a failure */
    struct form form; /* HTTP/1.1: the whole request; gRPC: the body */
};

void spec_read(struct spec *spec);
void form_fill(const struct form *form, int64_t number, int64_t step, char *out);
void die(const char *format, ...) __attribute__((noreturn, format(printf, 1, 2)));

#endif

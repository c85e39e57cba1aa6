#define _GNU_SOURCE
#include "spec.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void die(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    fputs("loadgen: ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    exit(2);
}

static char *whole_file(const char *path, size_t *size) {
    FILE *file = fopen(path, "rb");
    if (!file) die("cannot read %s", path);
    char *bytes = NULL;
    size_t length = 0, room = 0;
    for (;;) {
        if (length == room) bytes = realloc(bytes, room = room ? 2 * room : 4096);
        size_t got = fread(bytes + length, 1, room - length, file);
        if (got == 0) break;
        length += got;
    }
    fclose(file);
    *size = length;
    return bytes;
}

static void find_holes(struct form *form) {
    char mark[NUMBER_DIGITS];
    memset(mark, '#', sizeof mark);
    for (size_t at = 0; at + sizeof mark <= form->size;) {
        char *found = memmem(form->bytes + at, form->size - at, mark, sizeof mark);
        if (!found) break;
        form->holes = realloc(form->holes, (form->hole_count + 1) * sizeof *form->holes);
        form->holes[form->hole_count++] = (size_t)(found - form->bytes);
        at = (size_t)(found - form->bytes) + sizeof mark;
    }
}

void form_fill(const struct form *form, int64_t number, int64_t step, char *out) {
    memcpy(out, form->bytes, form->size);
    for (size_t i = 0; i < form->hole_count; i++) {
        int64_t value = number + (int64_t)i % step;
        for (int digit = NUMBER_DIGITS - 1; digit >= 0; digit--, value /= 10)
            out[form->holes[i] + (size_t)digit] = (char)('0' + value % 10);
    }
}

/* The request of HTTP/1.1, head and body in one piece. */
static void assemble(struct spec *spec, const char *method, const char *body, size_t body_size) {
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    fprintf(out, "%s %s HTTP/1.1\r\nHost: localhost\r\n", method, spec->path);
    for (int i = 0; i < spec->header_count; i++)
        fprintf(out, "%s: %s\r\n", spec->header_names[i], spec->header_values[i]);
    if (body_size) fprintf(out, "Content-Length: %zu\r\n", body_size);
    fputs("\r\n", out);
    fwrite(body, 1, body_size, out);
    fclose(out);
    spec->form.bytes = text;
    spec->form.size = size;
}

static void add_target(struct spec *spec, char *value) {
    char *port = strchr(value, ' ');
    if (!port) die("target: needed is HOST PORT");
    *port++ = 0;
    spec->targets = realloc(spec->targets, (size_t)(spec->target_count + 1) * sizeof *spec->targets);
    spec->targets[spec->target_count++] = (struct target){strdup(value), strdup(port)};
}

static void add_header(struct spec *spec, char *value) {
    char *text = strstr(value, ": ");
    if (!text) die("header: needed is NAME: VALUE");
    *text = 0;
    size_t size = (size_t)(spec->header_count + 1) * sizeof(char *);
    spec->header_names = realloc(spec->header_names, size);
    spec->header_values = realloc(spec->header_values, size);
    spec->header_names[spec->header_count] = strdup(value);
    spec->header_values[spec->header_count++] = strdup(text + 2);
}

void spec_read(struct spec *spec) {
    *spec = (struct spec){.clients = 1, .run_ns = 1000000000, .step = 1};
    char *line = NULL, *method = NULL, *body = NULL;
    size_t room = 0, body_size = 0;
    for (;;) {
        if (getline(&line, &room, stdin) < 0) die("the description does not end with `end`");
        line[strcspn(line, "\n")] = 0;
        if (!strcmp(line, "end")) break;
        char *value = strchr(line, ' ');
        if (!value) die("%s: a value is missing", line);
        *value++ = 0;
        if (!strcmp(line, "protocol")) spec->grpc = !strcmp(value, "grpc");
        else if (!strcmp(line, "target")) add_target(spec, value);
        else if (!strcmp(line, "ca")) spec->ca = strdup(value);
        else if (!strcmp(line, "clients")) spec->clients = atoi(value);
        else if (!strcmp(line, "warm_ms")) spec->warm_ns = atoll(value) * 1000000;
        else if (!strcmp(line, "run_ms")) spec->run_ns = atoll(value) * 1000000;
        else if (!strcmp(line, "every_us")) spec->every_ns = atoll(value) * 1000;
        else if (!strcmp(line, "first")) spec->first = atoll(value);
        else if (!strcmp(line, "step")) spec->step = atoll(value);
        else if (!strcmp(line, "modulo")) spec->modulo = atoll(value);
        else if (!strcmp(line, "method")) method = strdup(value);
        else if (!strcmp(line, "path")) spec->path = strdup(value);
        else if (!strcmp(line, "header")) add_header(spec, value);
        else if (!strcmp(line, "forbid")) spec->forbid = strdup(value);
        else if (!strcmp(line, "body")) body = whole_file(value, &body_size);
        else die("%s: unknown key", line);
    }
    free(line);
    if (!spec->target_count || !spec->ca || !method || !spec->path) die("target, ca, method and path are needed");
    if (spec->clients < 1 || spec->step < 1) die("clients and step are at least 1");
    if (spec->grpc) {
        spec->form.bytes = body;
        spec->form.size = body_size;
    } else {
        assemble(spec, method, body, body_size);
    }
    free(method);
    find_holes(&spec->form);
}

#define _GNU_SOURCE
#include "conn.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

static void reserve(struct buffer *buffer, size_t more) {
    if (buffer->size + more <= buffer->room) return;
    while (buffer->room < buffer->size + more) buffer->room = buffer->room ? 2 * buffer->room : 4096;
    buffer->bytes = realloc(buffer->bytes, buffer->room);
    if (!buffer->bytes) die("out of memory");
}

/* -- opening and closing ------------------------------------------------------------------------------------------ */

SSL_CTX *conn_context(const struct spec *spec) {
    SSL_CTX *context = SSL_CTX_new(TLS_client_method());
    if (!context || !SSL_CTX_load_verify_locations(context, spec->ca, NULL)) die("cannot use the authority %s", spec->ca);
    SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION);
    SSL_CTX_set_verify(context, SSL_VERIFY_PEER, NULL);
    SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    if (spec->grpc) SSL_CTX_set_alpn_protos(context, (const unsigned char *)"\x02h2", 3);
    return context;
}

void conn_open(struct conn *conn, SSL_CTX *context) {
    const struct target *target = &conn->spec->targets[conn->target];
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICHOST | AI_NUMERICSERV}, *address;
    if (getaddrinfo(target->host, target->port, &hints, &address)) die("%s %s: no address", target->host, target->port);
    conn->fd = socket(address->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    int on = 1;
    setsockopt(conn->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    int failed = connect(conn->fd, address->ai_addr, address->ai_addrlen) < 0 && errno != EINPROGRESS;
    freeaddrinfo(address);
    conn->ssl = SSL_new(context);
    SSL_set_fd(conn->ssl, conn->fd);
    X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(conn->ssl), target->host);
    SSL_set_connect_state(conn->ssl);
    conn->state = CONNECTING;
    conn->wants_write = 1;
    conn->out.size = conn->out_done = conn->in.size = 0;
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT, .data.ptr = conn};
    epoll_ctl(conn->epoll, EPOLL_CTL_ADD, conn->fd, &event);
    if (failed) conn_close(conn);
}

void conn_close(struct conn *conn) {
    if (conn->state == CLOSED) return;
    int busy = conn->state == BUSY;
    conn->state = CLOSED;
    nghttp2_session_del(conn->h2);
    conn->h2 = NULL;
    SSL_free(conn->ssl);
    close(conn->fd);
    if (busy) conn_answered(conn, DONE_BROKEN);
    conn_broken(conn);
}

static void watch(struct conn *conn, int write) {
    if (conn->wants_write == write) return;
    conn->wants_write = write;
    struct epoll_event event = {.events = EPOLLIN | (write ? EPOLLOUT : 0), .data.ptr = conn};
    epoll_ctl(conn->epoll, EPOLL_CTL_MOD, conn->fd, &event);
}

static void finish(struct conn *conn, int result) {
    conn->state = IDLE;
    conn_answered(conn, result);
}

/* -- gRPC --------------------------------------------------------------------------------------------------------- */

static int on_header(nghttp2_session *h2, const nghttp2_frame *frame, const uint8_t *name, size_t name_size,
                     const uint8_t *value, size_t value_size, uint8_t flags, void *user) {
    (void)h2, (void)frame, (void)value_size, (void)flags;
    struct conn *conn = user;
    if (name_size == 7 && !memcmp(name, ":status", 7)) conn->http_status = atoi((const char *)value);
    if (name_size == 11 && !memcmp(name, "grpc-status", 11)) conn->grpc_status = atoi((const char *)value);
    return 0;
}

static int on_stream_close(nghttp2_session *h2, int32_t stream, uint32_t error, void *user) {
    (void)h2, (void)stream;
    struct conn *conn = user;
    if (error || conn->http_status != 200) finish(conn, conn->http_status > 200 ? conn->http_status : DONE_BROKEN);
    else finish(conn, conn->grpc_status ? 1000 + conn->grpc_status : DONE_OK);
    return 0;
}

static ssize_t read_body(nghttp2_session *h2, int32_t stream, uint8_t *out, size_t room, uint32_t *flags,
                         nghttp2_data_source *source, void *user) {
    (void)h2, (void)stream, (void)source;
    struct conn *conn = user;
    size_t left = conn->body.size - conn->body_done, size = left < room ? left : room;
    memcpy(out, conn->body.bytes + conn->body_done, size);
    conn->body_done += size;
    if (size == left) *flags |= NGHTTP2_DATA_FLAG_EOF;
    return (ssize_t)size;
}

static void start_h2(struct conn *conn) {
    nghttp2_session_callbacks *callbacks;
    nghttp2_session_callbacks_new(&callbacks);
    nghttp2_session_callbacks_set_on_header_callback(callbacks, on_header);
    nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, on_stream_close);
    nghttp2_session_client_new(&conn->h2, callbacks, conn);
    nghttp2_session_callbacks_del(callbacks);
    nghttp2_submit_settings(conn->h2, NGHTTP2_FLAG_NONE, NULL, 0);
}

static nghttp2_nv field(const char *name, const char *value) {
    return (nghttp2_nv){(uint8_t *)name, (uint8_t *)value, strlen(name), strlen(value), NGHTTP2_NV_FLAG_NONE};
}

static void request_grpc(struct conn *conn) {
    const nghttp2_nv headers[] = {
        field(":method", "POST"), field(":scheme", "https"),
        field(":path", conn->spec->path), field(":authority", conn->spec->targets[conn->target].host),
        field("content-type", "application/grpc"), field("te", "trailers"),
    };
    nghttp2_data_provider provider = {.read_callback = read_body};
    conn->body_done = 0;
    conn->http_status = 0;
    conn->grpc_status = 2; /* UNKNOWN, unless the trailer says otherwise */
    if (nghttp2_submit_request(conn->h2, NULL, headers, sizeof headers / sizeof *headers, &provider, NULL) < 0)
        die("a request could not be made");
}

/* -- HTTP/1.1 ----------------------------------------------------------------------------------------------------- */

/* The answer in `in`, if it is whole. */
static void parse_answer(struct conn *conn) {
    struct buffer *in = &conn->in;
    char *end = memmem(in->bytes, in->size, "\r\n\r\n", 4);
    if (!end) return;
    long status = in->size > 12 ? strtol(in->bytes + 9, NULL, 10) : 0;
    long length = -1;
    int last = 0;
    for (char *line = memchr(in->bytes, '\n', in->size); line && line < end; line = memchr(line, '\n', end - line + 2)) {
        line++;
        if (!strncasecmp(line, "content-length:", 15)) length = strtol(line + 15, NULL, 10);
        if (!strncasecmp(line, "connection: close", 17)) last = 1;
    }
    if (length < 0) die("an answer without Content-Length");
    size_t size = (size_t)(end + 4 - in->bytes) + (size_t)length;
    if (in->size < size) return;
    const char *forbid = conn->spec->forbid;
    int result = status >= 200 && status < 300 ? DONE_OK : (int)status;
    if (!result && forbid && memmem(end + 4, (size_t)length, forbid, strlen(forbid))) result = DONE_FORBIDDEN;
    if (result > 0 && conn->spec->every_ns == 0) fprintf(stderr, "%.*s\n", (int)(length > 300 ? 300 : length), end + 4);
    in->size = 0;
    if (!last) return finish(conn, result);
    conn->state = IDLE;
    conn_close(conn);
    conn_answered(conn, result);
}

/* -- bytes in and out --------------------------------------------------------------------------------------------- */

static void flush(struct conn *conn) {
    while (conn->state >= IDLE) {
        if (conn->out_done == conn->out.size) {
            conn->out.size = conn->out_done = 0;
            if (!conn->h2) break;
            const uint8_t *bytes;
            ssize_t size = nghttp2_session_mem_send(conn->h2, &bytes);
            if (size < 0) return conn_close(conn);
            if (size == 0) break;
            reserve(&conn->out, (size_t)size);
            memcpy(conn->out.bytes, bytes, (size_t)size);
            conn->out.size = (size_t)size;
        }
        ERR_clear_error();
        int sent = SSL_write(conn->ssl, conn->out.bytes + conn->out_done, (int)(conn->out.size - conn->out_done));
        if (sent <= 0) {
            if (SSL_get_error(conn->ssl, sent) == SSL_ERROR_WANT_WRITE) return watch(conn, 1);
            return conn_close(conn);
        }
        conn->out_done += (size_t)sent;
    }
    if (conn->state >= IDLE) watch(conn, 0);
}

static void receive(struct conn *conn) {
    char bytes[16384];
    while (conn->state >= IDLE) {
        ERR_clear_error();
        int got = SSL_read(conn->ssl, bytes, sizeof bytes);
        if (got <= 0) {
            if (SSL_get_error(conn->ssl, got) == SSL_ERROR_WANT_READ) return;
            return conn_close(conn);
        }
        if (conn->h2) {
            if (nghttp2_session_mem_recv(conn->h2, (uint8_t *)bytes, (size_t)got) != got) return conn_close(conn);
        } else {
            reserve(&conn->in, (size_t)got);
            memcpy(conn->in.bytes + conn->in.size, bytes, (size_t)got);
            conn->in.size += (size_t)got;
            parse_answer(conn);
        }
    }
}

static void shake_hands(struct conn *conn) {
    ERR_clear_error();
    int result = SSL_do_handshake(conn->ssl);
    if (result == 1) {
        conn->state = IDLE;
        if (conn->spec->grpc) start_h2(conn);
        conn_ready(conn);
        return;
    }
    int error = SSL_get_error(conn->ssl, result);
    if (error == SSL_ERROR_WANT_READ) watch(conn, 0);
    else if (error == SSL_ERROR_WANT_WRITE) watch(conn, 1);
    else conn_close(conn);
}

void conn_event(struct conn *conn) {
    if (conn->state == CLOSED) return;
    if (conn->state == CONNECTING) {
        int error = 0;
        socklen_t size = sizeof error;
        getsockopt(conn->fd, SOL_SOCKET, SO_ERROR, &error, &size);
        if (error) return conn_close(conn);
        conn->state = HANDSHAKE;
    }
    if (conn->state == HANDSHAKE) shake_hands(conn);
    receive(conn);
    flush(conn);
}

void conn_request(struct conn *conn, int64_t number) {
    const struct form *form = &conn->spec->form;
    struct buffer *into = conn->h2 ? &conn->body : &conn->out;
    conn->state = BUSY;
    if (conn->h2) into->size = 0;
    reserve(into, form->size);
    form_fill(form, number, conn->spec->step, into->bytes + into->size);
    into->size += form->size;
    if (conn->h2) request_grpc(conn);
}

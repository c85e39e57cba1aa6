/* One client: a TLS connection with at most one request in flight, over HTTP/1.1 or gRPC. */
#ifndef CONN_H
#define CONN_H

#include <nghttp2/nghttp2.h>
#include <openssl/ssl.h>

#include "spec.h"

enum conn_state { CLOSED, CONNECTING, HANDSHAKE, IDLE, BUSY };
enum { DONE_OK = 0, DONE_BROKEN = -1, DONE_FORBIDDEN = -2 }; /* else the HTTP status, or 1000 + the gRPC status */

struct buffer {
    char *bytes;
    size_t size, room;
};

struct conn {
    const struct spec *spec;
    int index, target, fd, epoll;
    enum conn_state state;
    int wants_write; /* what epoll watches besides reading */
    SSL *ssl;
    struct buffer out, in;
    size_t out_done;
    nghttp2_session *h2;
    struct buffer body; /* of the gRPC request in flight */
    size_t body_done;
    int http_status, grpc_status;
    int64_t began_ns, reopen_ns;
    int seen; /* was answered at least once */
};

/* Provided by the main program. */
void conn_ready(struct conn *conn);
void conn_answered(struct conn *conn, int result);
void conn_broken(struct conn *conn); /* after conn_answered(DONE_BROKEN) if a request was in flight */

SSL_CTX *conn_context(const struct spec *spec);
void conn_open(struct conn *conn, SSL_CTX *context);
void conn_close(struct conn *conn);
void conn_event(struct conn *conn);
void conn_request(struct conn *conn, int64_t number);

#endif

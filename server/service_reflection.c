/* SPDX-License-Identifier: Apache-2.0 */
/* service_reflection.c - grpc.reflection v1 and v1alpha, whose messages are the same bytes: what services there are, and
 * their descriptors. A stream: every message gets one answer. Thread: loop.
 * The descriptor set is made by protoc at build time and linked in; it is our own, and is searched as it lies.
 *
 *   FileDescriptorSet {file = 1}
 *   FileDescriptorProto {name = 1, package = 2, message_type = 4, enum_type = 5, service = 6}
 *   DescriptorProto {name = 1, nested_type = 3, enum_type = 4}; the others {name = 1}, a service {method = 2}
 *   request  {host = 1, file_by_filename = 3, file_containing_symbol = 4, file_containing_extension = 5,
 *             all_extension_numbers_of_type = 6, list_services = 7}
 *   response {valid_host = 1, original_request = 2, file_descriptor_response = 4, all_extension_numbers_response = 5,
 *             list_services_response = 6, error_response = 7}
 * None of our files imports another one, so that a file's answer is that file alone; there are no extensions. */
#include <string.h>

#include "server/front_internal.h"

extern const uint8_t proto_descriptors[];
extern const size_t proto_descriptors_bytes;

enum { FILE_NAME = 1, FILE_PACKAGE = 2, FILE_MESSAGE = 4, FILE_ENUM = 5, FILE_SERVICE = 6 };
enum { MESSAGE_NESTED = 3, MESSAGE_ENUM = 4, SERVICE_METHOD = 2 };
enum { ASK_FILE = 3, ASK_SYMBOL = 4, ASK_EXTENSION = 5, ASK_EXTENSION_NUMBERS = 6, ASK_SERVICES = 7 };
enum { TELL_HOST = 1, TELL_REQUEST = 2, TELL_FILE = 4, TELL_EXTENSION_NUMBERS = 5, TELL_SERVICES = 6, TELL_ERROR = 7 };

struct piece {
    const uint8_t *at;
    size_t bytes;
};

static struct piece piece_of(const struct wire_field *field)
{
    return (struct piece){field->bytes, field->count};
}

static bool same(struct piece a, struct piece b)
{
    return a.bytes == b.bytes && (a.bytes == 0 || memcmp(a.at, b.at, a.bytes) == 0);
}

/* The next bytes field with this number. */
static bool next_piece(struct wire *wire, uint32_t number, struct piece *ret)
{
    struct wire_field field;
    while (wire_next(wire, &field) == 1) {
        if (field.number != number || field.type != WIRE_BYTES) continue;
        *ret = piece_of(&field);
        return true;
    }
    return false;
}

static struct piece first_piece(struct piece message, uint32_t number)
{
    struct wire wire = wire_of(message.at, message.bytes);
    struct piece found = {(const uint8_t *)"", 0};
    next_piece(&wire, number, &found);
    return found;
}

static bool next_file(struct wire *set, struct piece *ret)
{
    return next_piece(set, 1, ret);
}

static struct wire all_files(void)
{
    return wire_of(proto_descriptors, proto_descriptors_bytes);
}

/* If symbol begins with `name` as a whole, and a dot or its end behind it: true, and symbol moves behind both. */
static bool take_name(struct piece *symbol, struct piece name)
{
    if (symbol->bytes < name.bytes || memcmp(symbol->at, name.at, name.bytes) != 0) return false;
    if (symbol->bytes > name.bytes && symbol->at[name.bytes] != '.') return false;
    size_t skip = symbol->bytes > name.bytes ? name.bytes + 1 : name.bytes;
    symbol->at += skip;
    symbol->bytes -= skip;
    return true;
}

/* Does message hold, among its fields `number`, one with the name that symbol begins with? *ret is that one, and symbol
 * what is left of it. */
static bool descend(struct piece message, uint32_t number, struct piece *symbol, struct piece *ret)
{
    struct wire wire = wire_of(message.at, message.bytes);
    while (next_piece(&wire, number, ret))
        if (take_name(symbol, first_piece(*ret, 1))) return true;
    return false;
}

static bool file_has(struct piece file, struct piece symbol)
{
    struct piece found;
    if (!take_name(&symbol, first_piece(file, FILE_PACKAGE))) return false;
    if (descend(file, FILE_SERVICE, &symbol, &found))
        return symbol.bytes == 0 || (descend(found, SERVICE_METHOD, &symbol, &found) && symbol.bytes == 0);
    if (descend(file, FILE_ENUM, &symbol, &found)) return symbol.bytes == 0;
    if (!descend(file, FILE_MESSAGE, &symbol, &found)) return false;
    while (symbol.bytes > 0 && descend(found, MESSAGE_NESTED, &symbol, &found)) {
    }
    return symbol.bytes == 0 || (descend(found, MESSAGE_ENUM, &symbol, &found) && symbol.bytes == 0);
}

static bool find_file(uint32_t ask, struct piece what, struct piece *ret)
{
    struct wire set = all_files();
    while (next_file(&set, ret))
        if (ask == ASK_FILE ? same(first_piece(*ret, FILE_NAME), what) : file_has(*ret, what)) return true;
    return false;
}

/* Answers are made twice: once to learn their size, once to write them. */
struct writer {
    uint8_t *to; /* NULL: measure */
    size_t bytes;
};

static void write_bytes(struct writer *w, const void *bytes, size_t n)
{
    if (w->to != NULL && n > 0) memcpy(w->to + w->bytes, bytes, n);
    w->bytes += n;
}

static void write_head(struct writer *w, uint32_t number, size_t n)
{
    if (w->to != NULL) wire_put_head(w->to + w->bytes, number, n);
    w->bytes += wire_head_bytes(n);
}

static void write_piece(struct writer *w, uint32_t number, struct piece piece)
{
    write_head(w, number, piece.bytes);
    write_bytes(w, piece.at, piece.bytes);
}

/* A nested message that holds one field 1. */
static void write_nested(struct writer *w, uint32_t number, struct piece piece)
{
    write_head(w, number, wire_head_bytes(piece.bytes) + piece.bytes);
    write_piece(w, 1, piece);
}

static void write_services(struct writer *w)
{
    struct wire set = all_files();
    struct piece file, service;
    while (next_file(&set, &file)) {
        struct piece package = first_piece(file, FILE_PACKAGE);
        struct wire wire = wire_of(file.at, file.bytes);
        while (next_piece(&wire, FILE_SERVICE, &service)) {
            struct piece name = first_piece(service, 1);
            size_t full = package.bytes + 1 + name.bytes;
            write_head(w, 1, wire_head_bytes(full) + full);
            write_head(w, 1, full);
            write_bytes(w, package.at, package.bytes);
            write_bytes(w, ".", 1);
            write_bytes(w, name.at, name.bytes);
        }
    }
}

static void write_error(struct writer *w, enum grpc_status status, const char *text)
{
    struct piece message = {(const uint8_t *)text, strlen(text)};
    uint8_t code[WIRE_VARINT_BYTES_MAX + 1];
    size_t code_bytes = (size_t)(wire_put_uint(code, 1, status) - code);
    write_head(w, TELL_ERROR, code_bytes + wire_head_bytes(message.bytes) + message.bytes);
    write_bytes(w, code, code_bytes);
    write_piece(w, 2, message);
}

static void write_answer(struct writer *w, uint32_t ask, struct piece what)
{
    struct piece file;
    struct writer services = {0};
    switch (ask) {
    case ASK_FILE:
    case ASK_SYMBOL:
        if (find_file(ask, what, &file))
            write_nested(w, TELL_FILE, file);
        else
            write_error(w, GRPC_NOT_FOUND, "no such file or symbol");
        return;
    case ASK_EXTENSION_NUMBERS:
        if (find_file(ASK_SYMBOL, what, &file))
            write_nested(w, TELL_EXTENSION_NUMBERS, what);
        else
            write_error(w, GRPC_NOT_FOUND, "no such type");
        return;
    case ASK_SERVICES:
        write_services(&services);
        write_head(w, TELL_SERVICES, services.bytes);
        write_services(w);
        return;
    case ASK_EXTENSION: write_error(w, GRPC_NOT_FOUND, "there are no extensions"); return;
    default: write_error(w, GRPC_INVALID_ARGUMENT, "the request asks for nothing that is known here"); return;
    }
}

static void write_response(struct writer *w, struct piece request, uint32_t ask, struct piece what)
{
    struct piece host = first_piece(request, 1);
    if (host.bytes > 0) write_piece(w, TELL_HOST, host);
    write_piece(w, TELL_REQUEST, request);
    write_answer(w, ask, what);
}

void reflection_message(struct call *call, const uint8_t *bytes, size_t n)
{
    struct piece request = {bytes, n}, what = {(const uint8_t *)"", 0};
    struct wire wire = wire_of(bytes, n);
    struct wire_field field;
    struct writer w = {0};
    uint32_t ask = 0;
    int rc;
    while ((rc = wire_next(&wire, &field)) == 1) {
        if (field.type != WIRE_BYTES || field.number < ASK_FILE || field.number > ASK_SERVICES) continue;
        ask = field.number;
        what = piece_of(&field);
    }
    if (rc != 0) {
        call_fail(call, LOCKSTEP_EINVAL, "the request");
        return;
    }
    if (ask == ASK_EXTENSION) what = first_piece(what, 1);
    write_response(&w, request, ask, what);
    size_t size = w.bytes;
    w.bytes = 0;
    if (grpc_call_claim(call->grpc, size, &w.to) != 0) {
        call_finish(call, GRPC_RESOURCE_EXHAUSTED, "too many answers wait on this connection; read them");
        return;
    }
    write_response(&w, request, ask, what);
    lk_assert(w.bytes == size);
    grpc_call_commit(call->grpc, size);
    grpc_call_consumed(call->grpc, n);
    connection_touch(call->connection);
}

void reflection_half_close(struct call *call)
{
    call_finish(call, GRPC_OK, "");
}

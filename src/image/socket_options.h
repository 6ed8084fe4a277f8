/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * socket_options.h - what every kind of socket has: family, type, protocol, and options of socket(7), ip(7), ipv6(7), tcp(7) and
 * unix(7) that are carried from getsockopt to setsockopt
 */
#ifndef GODWIT_IMAGE_SOCKET_OPTIONS_H
#define GODWIT_IMAGE_SOCKET_OPTIONS_H

#include "image/file_look.h"
#include "image/refuse.h"

/* When an option is set: some would change, or lose, what the restore itself sends. */
enum socket_option_time { OPTIONS_EARLY, OPTIONS_LATE };

int socket_get_int(int fd, int level, int name);
/* 0 or -errno. */
int socket_set_int(int fd, int level, int name, int value);

/* All carried options of a socket of this family, type and protocol are appended to *v of *n. */
void socket_options_capture(int fd, uint32_t family, uint32_t type, Gw__FdSockOpt ***v, size_t *n);
void socket_options_free(Gw__FdSockOpt ***v, size_t *n);
/* FD_REFUSED, and a refusal added, when the socket has a filter that cannot be read back (eBPF). */
int socket_options_refuse(const struct fd_look *look, struct refusals *refusals);
/* Only options that apply to family and type, of sane sizes. */
int socket_options_validate(uint32_t family, uint32_t type, Gw__FdSockOpt *const *v, size_t n, struct err *e);
/* What the socket has anyway is left alone: setting it may need privileges, or switch off automatic tuning. */
int socket_options_set(int fd, Gw__FdSockOpt *const *v, size_t n, enum socket_option_time time, struct err *e);

/* One of them, if it is there. */
int socket_options_set_one(int fd, Gw__FdSockOpt *const *v, size_t n, int level, int name, struct err *e);
/* -1: it is not there, or no number. */
int socket_options_int(Gw__FdSockOpt *const *v, size_t n, int level, int name);
/* NULL: it is not there. */
const Gw__FdSockOpt *socket_options_find(Gw__FdSockOpt *const *v, size_t n, int level, int name);
/* Those that are not what they were. */
int socket_options_update(int fd, Gw__FdSockOpt *const *was, size_t n_was, Gw__FdSockOpt *const *v, size_t n, struct err *e);
void socket_options_drop(Gw__FdSockOpt **v, size_t *n, int level, int name);

/* Whether the socket held at fd belongs to the network namespace of this process. */
bool socket_same_net_namespace(int fd);
/* Source: by which number the unit knows the namespace of a socket; 0 also for one that is none of the unit's. */
uint32_t socket_net_namespace(int fd);
int socket_refuse_namespace(const struct fd_look *look, const char *what, struct refusals *refusals);

#endif

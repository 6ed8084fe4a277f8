/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * door.h - how a long-lived process of Godwit is found on its host, also by a godwitd that was started later: a unix SOCK_SEQPACKET socket with a name
 *
 * DIRECTORY/NAME. godwit-away has one named by the migration that brought its unit (32 hex digits), through which godwitd hands over connections of
 * ROLE_HOME; godwit-home has one named by the unit (HOME:PID). Each message is one byte, DOOR_*, with data or a descriptor.
 */
#ifndef GODWIT_HOME_DOOR_H
#define GODWIT_HOME_DOOR_H

#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"

#define DOOR_DEFAULT_DIRECTORY "/run/godwit/home"
#define DOOR_NAME_MAX 100u /* the path must fit a socket's address */

enum door_word {
	DOOR_LINK = 'L', /* to godwit-away: with a connection of ROLE_HOME */
	DOOR_HOLD = 'H', /* to godwit-away: the unit is about to leave for struct door_target; deliver nothing until the end of this connection */
	DOOR_HELD = 'h', /* its answer */
	DOOR_MOVED = 'M', /* to godwit-away: it has left. Without this word before the end it has stayed */
	DOOR_RELAYS = 'Q', /* to godwit-away: which relays it has; answered by struct door_relay[] */
	DOOR_WHERE = 'W', /* to godwit-home: where the unit is; answered by struct door_where */
	DOOR_CONNECT = 'C', /* to godwit-home: struct door_connect, with a client of a socket that the unit listens on */
	/* to godwit-home, when the unit is about to come back (back.h); each is answered by a struct door_answer */
	DOOR_ASK = 'A', /* whether it can be in its stub's place; behind the answer, one a message, struct door_relay with the descriptor that the unit had */
	DOOR_STUB = 'S', /* with the descriptors of a skeleton that the stub is to become */
	DOOR_SETTLE = 'F', /* struct door_settle, and what lies in relayed pipes at the unit's host: the unit is frozen there */
	DOOR_BACK = 'B', /* the unit is about to run here again. Without this word before the end the stub is wanted again */
};

/* Where a unit goes: DOOR_HOLD. */
struct door_target {
	uint8_t word;
	uint8_t mig_id[16];
	uint8_t address[16]; /* struct sockaddr_in */
	char host[65];
} __attribute__((packed));

/* DOOR_HELD: how far godwit-away is with what it has got from home, and what it has sent. */
struct door_held {
	uint8_t word;
	uint64_t handled, sent;
} __attribute__((packed));

/* DOOR_CONNECT. */
struct door_connect {
	uint8_t word;
	uint32_t uid, gid;  /* of the client */
	char path[256];     /* of the socket's file */
} __attribute__((packed));

/* A relay and the inode of its descriptor. */
struct door_relay {
	uint32_t id, kind; /* CHANNEL_* */
	uint64_t ino;      /* a terminal: its number */
};

struct door_answer {
	int32_t pid;       /* of the stub; 0: there is none, only relays; negative: no, and `why` says it */
	uint32_t relays;   /* to DOOR_ASK */
	char why[200];
};

struct door_where {
	int32_t pid;         /* of the stub; 0: none */
	uint8_t stopped;
	uint8_t address[16]; /* struct sockaddr_in */
	char host[65];
	char command[200];
} __attribute__((packed));

/* With a descriptor of a file: struct door_rest and `len` bytes each. */
struct door_settle {
	uint8_t word;
	uint64_t handled, sent; /* as in struct door_held */
} __attribute__((packed));

struct door_rest {
	uint32_t id, len; /* id: a relay's, or REST_* */
};

/* Of the terminal: what the unit has written and nobody has taken, what was typed and not read (by the line discipline, behind that), its modes and size. */
enum door_rest_part { REST_OUTPUT = 0x10000, REST_TYPED, REST_TYPED_BEHIND, REST_MODES, REST_WINDOW };

#define DOOR_RELAYS_MAX 1024u

/* For this process and its children. */
void door_use_directory(const char *directory);
void door_name_of_migration(const uint8_t mig_id[16], char name[DOOR_NAME_MAX]);
/* A listening, non-blocking socket; takes the place of one with the same name. */
int door_open(const char *name, struct err *e);
void door_remove(const char *name);
/* Names of doors that begin with `prefix`; stops when `each` returns not 0. */
void door_list(const char *prefix, int (*each)(const char *name, void *arg), void *arg);
/* -ENOENT when nobody listens; never blocks. */
int door_connect(const char *name, struct err *e);
/* One byte (or more) with descriptors. */
int door_send(int fd, const void *data, size_t len, const int *fds, size_t n_fds, struct err *e);
/* At most max_fds descriptors come; *ret_n_fds of them. Returns the bytes, 0 at the end. */
ssize_t door_receive(int fd, void *data, size_t len, int *ret_fds, size_t max_fds, size_t *ret_n_fds, struct err *e);

#endif

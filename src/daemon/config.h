/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * config.h - godwit.conf: who this node is and which others there are (godwit.conf(5))
 *
 * Everything has a default: without a file the node is called like the host, listens on 0.0.0.0:4470 and knows no other node.
 *
 * The key of the cluster is what the file of `key_file` makes (SHA-256 of its text). Without one gossip is taken from the nodes of the configuration only, so that seeds need a key.
 */
#ifndef GODWIT_DAEMON_CONFIG_H
#define GODWIT_DAEMON_CONFIG_H

#include <netinet/in.h>
#include <stdbool.h>
#include <time.h>

#include "base/err.h"
#include "cluster/gossip.h"
#include "cluster/gossip_packet.h"
#include "cluster/members.h"
#include "cluster/membership.h"
#include "cluster/policy.h"
#include "image/admission.h"
#include "wire/hello.h"
#include "wire/tls.h"

#define CONFIG_DEFAULT_PATH "/etc/godwit/godwit.conf"
#define CONFIG_DEFAULT_KEY_PATH "/etc/godwit/cluster.key" /* read when it is there */
#define CONFIG_DEFAULT_BUSY "mem<maxmem/50"
#define CONFIG_BUSY_MAX 255
#define CONFIG_ARCH_MAX 31
#define CONFIG_DEFAULT_TOKENS "/etc/godwit/api-tokens" /* TOKENS_DEFAULT_PATH */
#define CONFIG_NODES_MAX 10240
#define CONFIG_LABELS_MAX GOSSIP_LABELS_MAX
#define CONFIG_BYTES_MAX (1u << 20)

struct config_node {
	char name[HELLO_NAME_MAX + 1];
	struct sockaddr_in address;
};

struct config {
	char name[HELLO_NAME_MAX + 1];
	struct sockaddr_in listen;
	double speed;              /* of a core, for load figures: 1 */
	char arch[CONFIG_ARCH_MAX + 1]; /* of programs here; "": the kernel's */
	char emulator[256];        /* which runs them; "": the kernel does */
	char labels[CONFIG_LABELS_MAX + 1]; /* "gpu zone=east": words divided by one blank each */
	bool root_only;       /* others than root and access_group are not served */
	bool has_access_group;
	gid_t access_group;   /* whose members may do everything */
	struct admission arriving; /* as whom what arrives may run */
	bool workstation;          /* it belongs to who works at it: then units of other nodes leave */
	unsigned owner_idle_ms;    /* who has pressed no key for so long does not work */
	bool drain_at_stop;        /* SIGTERM: everything is given away before godwitd ends, */
	unsigned drain_timeout_ms; /* for so long at most */
	unsigned peer_timeout_ms; /* a node that answers nothing for so long counts as dead */
	struct config_node *nodes; /* in the order of the file; may include this node */
	size_t n_nodes;
	struct sockaddr_in seeds[MEMBERS_SEEDS_MAX];
	size_t n_seeds;
	struct membership_etcd etcd; /* n_servers 0: none */
	char key_file[256];        /* "": the default one, if it is there */
	bool has_key;
	uint8_t key[GOSSIP_KEY_BYTES];
	bool api;                  /* HTTP at api.sock, */
	struct sockaddr_in api_listen; /* and over TLS there; port 0: nowhere */
	char api_tokens[256];      /* the file of tokens for that */
	struct tls_paths tls;      /* "": connections with other nodes are plain */
	enum policy_transfer transfer; /* of balancing: who begins a move, */
	enum policy_location location; /* and how its destination is chosen */
	bool keeps;                /* copies of other nodes' protected units, */
	uint64_t protect_mib;      /* of so much altogether; 0: as long as there is room */
	char busy[CONFIG_BUSY_MAX + 1]; /* a requirement: while the node's own figures match it takes nothing; "": never */
};

/* The defaults. The name is the host's up to the first dot. */
void config_init(struct config *config);
/* Reads a file over the defaults, and the key's. A missing file is an error only when `required`. -EINVAL with file and line. */
int config_load(struct config *config, const char *path, int required, struct err *e);
/* The same from memory (text ends with a 0), without the key; `path` is for messages. */
int config_parse(struct config *config, const char *text, const char *path, struct err *e);
/* The steps of config_load: */
/* The text of a file, with a 0 behind it; the caller's. */
int config_read_text(const char *path, char **ret, struct err *e);
/* As config_parse; *ret_line: which line is wrong, 0: none of them. The message does not name it. */
int config_parse_line(struct config *config, const char *text, int *ret_line, struct err *e);
/* The key of the cluster; no error when there is none and none was named. */
int config_read_key(struct config *config, struct err *e);
/* Whether the files of [tls], if there are any named, are as they must be; *ret_until: until when the certificate is valid, 0: there is none. */
int config_check_tls(const struct config *config, time_t *ret_until, struct err *e);
/* What no line is wrong about. */
int config_check_whole(const struct config *config, struct err *e);

/* Whether this can be what a node says of itself: words of letters, digits and "._-", each with "=TEXT" behind it or not. */
bool config_labels_valid(const char *labels);
/* NULL when there is none. */
const struct config_node *config_find(const struct config *config, const char *name);
void config_free(struct config *config);

#endif

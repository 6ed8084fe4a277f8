/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * etcd_wire.h - what is said to etcd's JSON gateway (version 3, POST /v3/...), and what it answers: keys and values in base64, 64-bit numbers as texts
 *
 * Pure. Requests are objects that the caller frees. Answers come from a server and are checked: -EPROTO with what is wrong. etcd.io: "gRPC gateway", "etcd API reference".
 */
#ifndef GODWIT_CLUSTER_ETCD_WIRE_H
#define GODWIT_CLUSTER_ETCD_WIRE_H

#include <jansson.h>

#include "cluster/membership.h"

json_t *etcd_make_grant(unsigned lease_s);
json_t *etcd_make_lease(uint64_t lease); /* keepalive, revoke */
json_t *etcd_make_put(const char *key, const char *value, uint64_t lease);
/* All keys that begin with `key`, or that one. */
json_t *etcd_make_range(const char *key, bool prefix);
/* If `key` has this mod_revision (0: is not there), puts the value, or deletes it when that is NULL. */
json_t *etcd_make_swap(const char *key, uint64_t revision, const char *value);
/* And if `other` (NULL: none) has other_revision, too. */
json_t *etcd_make_swap_if(const char *key, uint64_t revision, const char *value, const char *other, uint64_t other_revision);

char *etcd_node_value(const struct membership_node *node);
char *etcd_record_value(const struct membership_record *record);

/* 0: the lease has expired. */
int etcd_read_lease(const json_t *answer, bool keepalive, uint64_t *ret, struct err *e);
int etcd_read_nodes(const json_t *answer, const char *prefix, struct membership_node **ret, size_t *ret_n, struct err *e);
int etcd_read_records(const json_t *answer, const char *prefix, struct membership_record **ret, size_t *ret_n, struct err *e);
/* Whether it was done, and the revision of the store after it. */
int etcd_read_swap(const json_t *answer, bool *ret_done, uint64_t *ret_revision, struct err *e);

#endif

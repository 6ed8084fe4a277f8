/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * etcd_http.h - a question to etcd over HTTP, with libcurl
 *
 * libcurl brings some thirty libraries along, which every process of godwitd would map, and most clusters have no etcd. So it is loaded when the first question is asked (dlopen), by the
 * one process that asks.
 */
#ifndef GODWIT_CLUSTER_ETCD_HTTP_H
#define GODWIT_CLUSTER_ETCD_HTTP_H

#include <jansson.h>

#include "base/err.h"
#include "cluster/membership.h"

struct etcd_http;

/* -ENOENT: libcurl is not there. `etcd` is copied. */
int etcd_http_open(struct etcd_http **ret, const struct membership_etcd *etcd, struct err *e);
void etcd_http_close(struct etcd_http *h);
/*
 * POST of `question` (takes the reference) to /v3/PATH of one server after the other, beginning with the one that answered last; the caller's reference in *ret. -ENOTCONN: none answered,
 * -EREMOTEIO: etcd says why not. A question that changes something may have been taken in though nobody answered.
 */
int etcd_http_ask(struct etcd_http *h, const char *path, json_t *question, json_t **ret, struct err *e);

#endif

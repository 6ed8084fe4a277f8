/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * metrics.h - what is counted and measured here, in Prometheus's text format (version 0.0.4)
 *
 * https://prometheus.io/docs/instrumenting/exposition_formats/. The list of all is in docs/watching.md, and share/grafana.json shows them; a test holds the three against each other.
 */
#ifndef GODWIT_DAEMON_METRICS_H
#define GODWIT_DAEMON_METRICS_H

#include <stdio.h>

#include "daemon/daemon.h"

/* All of this node, a family after the other. For a worker: it lists units and connections. */
void metrics_write(const struct daemon *d, FILE *f);

#endif

// SPDX-License-Identifier: GPL-2.0-or-later
/* node_ask.c - NodeInfo: answering it (main process), and asking every node at once (a worker); see node_ask.h */
#include <errno.h>
#include <math.h>
#include <poll.h>
#include <sys/sysinfo.h>
#include <sys/utsname.h>

#include "base/util.h"
#include "daemon/node_ask.h"
#include "daemon/node_state.h"
#include "migrate/registry.h"

#define ASK_DEADLINE_MS 1000
#define INFO_MAX_BYTES 4096

static uint64_t memory_available(void)
{
	cleanup_fclose FILE *f = fopen("/proc/meminfo", "re");
	char line[128];
	unsigned long long kib;

	while (f && fgets(line, sizeof(line), f))
		if (sscanf(line, "MemAvailable: %llu kB", &kib) == 1)
			return kib * 1024;
	return 0;
}

/* What has begun to come here and is not in the figures yet. */
static void add_coming(const struct daemon *d, struct load *load)
{
	struct policy_node self = { .id = gossip_id(d->config.name) };

	cluster_view_add_sent(d->view, &self);
	load_add(load, self.sent_run, self.sent_mib);
}

int node_info_send(const struct daemon *d, int fd, struct err *e)
{
	Gw__NodeInfo info = GW__NODE_INFO__INIT;
	struct utsname name;
	struct sysinfo si;
	double load[3] = { 0 };
	uint8_t payload[INFO_MAX_BYTES];
	struct load vector;
	int units;

	uname(&name);
	sysinfo(&si);
	(void)!getloadavg(load, 3);
	units = registry_list(NULL, NULL, NULL);
	info.name = (char *)d->config.name;
	info.kernel = name.release;
	info.units = (uint32_t)MAX(units, 0);
	info.uptime_s = (clock_ns(CLOCK_BOOTTIME) - d->started_ns) / 1000000000ull;
	info.load1 = load[0];
	info.load5 = load[1];
	info.load15 = load[2];
	info.mem_total_bytes = (uint64_t)si.totalram * si.mem_unit;
	info.mem_available_bytes = memory_available();
	info.migrations = worker_count(d, WORKER_SOURCE) + worker_count(d, WORKER_DEST);
	cluster_view_load(d->view, d->config.speed, &vector);
	info.indices = vector.v;
	info.n_indices = LOAD_INDICES;
	add_coming(d, &vector);
	info.labels = (char *)d->config.labels;
	info.state = node_state(d->shared);
	if (gw__node_info__get_packed_size(&info) > sizeof(payload))
		return err_set(e, -EMSGSIZE, "node info");
	return frame_send(fd, FRAME_NODE_INFO, payload, gw__node_info__pack(&info, payload), e);
}

bool node_takes(const Gw__NodeInfo *info)
{
	return info->state == 0 || info->state == NODE_OK;
}

void node_load(const Gw__NodeInfo *info, struct load *ret)
{
	*ret = (struct load){ 0 };
	for (size_t i = 0; i < MIN(info->n_indices, (size_t)LOAD_INDICES); i++)
		ret->v[i] = info->indices[i];
}

static int validate(const Gw__NodeInfo *info, struct err *e)
{
	struct load load;
	size_t i, len = strnlen(info->kernel, 129);

	if (!hello_name_valid(info->name) || len > 128)
		return err_set(e, -EPROTO, "node info with a name or kernel that is none");
	for (i = 0; i < len; i++)
		if ((unsigned char)info->kernel[i] < ' ' || (unsigned char)info->kernel[i] > '~')
			return err_set(e, -EPROTO, "node info with a kernel release that is no text");
	if (!isfinite(info->load1) || !isfinite(info->load5) || !isfinite(info->load15))
		return err_set(e, -EPROTO, "node info with a load that is no number");
	if (info->state >= NODE_STATES)
		return err_set(e, -EPROTO, "node info with a state that is none");
	if (!config_labels_valid(info->labels))
		return err_set(e, -EPROTO, "node info with labels that are none");
	node_load(info, &load);
	return load_check(&load, e);
}

int node_info_decode(const void *data, size_t len, Gw__NodeInfo **ret, struct err *e)
{
	Gw__NodeInfo *info = gw__node_info__unpack(NULL, len, data);
	int r = info ? validate(info, e) : err_set(e, -EPROTO, "node info that does not parse");

	if (r < 0 && info)
		gw__node_info__free_unpacked(info, NULL);
	else if (r == 0)
		*ret = info;
	return r;
}

static int send_question(const struct daemon *d, struct question *q, struct err *e)
{
	int r = conn_finish(q->fd, &q->address, e);

	if (r < 0)
		return r;
	q->connected = true;
	return hello_ask(q->fd, ROLE_NODE_INFO, d->config.name, e);
}

static int read_answer(struct question *q, struct err *e)
{
	cleanup_frame struct frame frame = { 0 };
	int r = frame_reader_step(&q->reader, q->fd, INFO_MAX_BYTES, &frame, e);

	if (r <= 0)
		return r;
	if (frame.type == FRAME_ERROR)
		return frame_error_decode(&frame, e);
	if (frame.type != FRAME_NODE_INFO)
		return err_set(e, -EPROTO, "expected NODE_INFO, got %s (type %u)", frame_type_name(frame.type), frame.type);
	r = node_info_decode(frame.payload, frame.len, &q->info, e);
	if (r == 0)
		close_fdp(&q->fd);
	return r;
}

static void ask_all(const struct daemon *d, struct question *q, size_t n, struct pollfd *p)
{
	uint64_t deadline = clock_ns(CLOCK_MONOTONIC) + ASK_DEADLINE_MS * 1000000ull;
	size_t i, open;

	for (i = 0; i < n; i++)
		q[i].fd = conn_begin(&q[i].address, &q[i].error);
	for (;;) {
		uint64_t now = clock_ns(CLOCK_MONOTONIC);

		for (i = open = 0; i < n; i++) {
			p[i] = (struct pollfd){ .fd = q[i].fd, .events = q[i].connected ? POLLIN : conn_decided(q[i].fd) };
			open += q[i].fd >= 0;
		}
		if (!open || now >= deadline)
			break;
		if (poll(p, n, (int)((deadline - now + 999999) / 1000000)) < 0 && errno != EINTR)
			break;
		for (i = 0; i < n; i++) {
			if (q[i].fd < 0 || !p[i].revents)
				continue;
			if ((q[i].connected ? read_answer(&q[i], &q[i].error) : send_question(d, &q[i], &q[i].error)) < 0)
				close_fdp(&q[i].fd);
		}
	}
	for (i = 0; i < n; i++)
		if (q[i].fd >= 0)
			err_set(&q[i].error, -ETIMEDOUT, "no answer within %d ms", ASK_DEADLINE_MS);
}

int ask_nodes(const struct daemon *d, const struct cluster_node *nodes, size_t n, struct question **ret, struct err *e)
{
	struct question *q = calloc(n + 1, sizeof(*q));
	cleanup_free struct pollfd *p = calloc(n + 1, sizeof(*p));

	if (!q || !p) {
		free(q);
		return err_sys(e, -ENOMEM, "asking %zu nodes", n);
	}
	for (size_t i = 0; i < n; i++) {
		snprintf(q[i].name, sizeof(q[i].name), "%s", nodes[i].name);
		q[i].address = nodes[i].address;
	}
	ask_all(d, q, n, p);
	*ret = q;
	return 0;
}

void questions_free(struct question *q, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (q[i].info)
			gw__node_info__free_unpacked(q[i].info, NULL);
	free(q);
}

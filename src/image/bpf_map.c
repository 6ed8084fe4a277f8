/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* bpf_map.c - BPF maps; see bpf_map.h */
#include "image/bpf_map.h"

#include <bpf/bpf.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <sys/syscall.h>

#include "base/util.h"

#define CONTENTS_BYTES_MAX (64u << 20)
#define ENTRIES_MAX 4194304u
#define KEY_BYTES_MAX 4096u
#define FLAGS_ALLOWED (BPF_F_NO_PREALLOC | BPF_F_NO_COMMON_LRU | BPF_F_NUMA_NODE | BPF_F_ZERO_SEED | BPF_F_RDONLY_PROG | BPF_F_WRONLY_PROG | \
	BPF_F_MMAPABLE)

static bool is_array(uint32_t type)
{
	return type == BPF_MAP_TYPE_ARRAY || type == BPF_MAP_TYPE_PERCPU_ARRAY;
}

static bool is_per_cpu(uint32_t type)
{
	return type == BPF_MAP_TYPE_PERCPU_ARRAY || type == BPF_MAP_TYPE_PERCPU_HASH || type == BPF_MAP_TYPE_LRU_PERCPU_HASH;
}

static bool can_carry(uint32_t type)
{
	return is_array(type) || is_per_cpu(type) || type == BPF_MAP_TYPE_HASH || type == BPF_MAP_TYPE_LRU_HASH ||
		type == BPF_MAP_TYPE_LPM_TRIE;
}

static uint32_t value_bytes(uint32_t type, uint32_t value_size)
{
	long cpus = is_per_cpu(type) ? sysconf(_SC_NPROCESSORS_CONF) : 1;

	return is_per_cpu(type) ? (value_size + 7) / 8 * 8 * (uint32_t)cpus : value_size;
}

bool bpf_map_is_one(const char *link)
{
	return !strcmp(link, "anon_inode:bpf-map");
}

/* Whether a loaded program uses the map. */
static bool used_by_program(uint32_t map_id)
{
	uint32_t id = 0;
	bool used = false;

	while (!used && bpf_prog_get_next_id(id, &id) == 0) {
		uint32_t ids[64], len = sizeof(struct bpf_prog_info);
		cleanup_close int fd = bpf_prog_get_fd_by_id(id);
		struct bpf_prog_info info = { .nr_map_ids = ARRAY_SIZE(ids), .map_ids = (uintptr_t)ids };

		if (fd < 0 || bpf_obj_get_info_by_fd(fd, &info, &len) < 0)
			continue;
		for (uint32_t i = 0; i < MIN(info.nr_map_ids, (uint32_t)ARRAY_SIZE(ids)); i++)
			used = used || ids[i] == map_id;
	}
	return used;
}

static int refuse(const struct fd_look *look, const char *code, const char *cause, const char *way_out, struct refusals *refusals)
{
	refusals_add(refusals, code, cause, way_out, "fd %d (BPF map)", look->fd);
	return FD_REFUSED;
}

static int capture_static(const struct fd_look *look, Gw__FdDesc *d, struct refusals *refusals, struct err *e)
{
	struct bpf_map_info info = { 0 };
	uint32_t len = sizeof(info);
	Gw__FdBpfMap *m;

	if (bpf_obj_get_info_by_fd(look->held, &info, &len) < 0)
		return err_sys(e, -errno, "fd %d: facts of a BPF map", look->fd);
	if (!can_carry(info.type) || info.btf_id || info.btf_key_type_id || info.btf_vmlinux_value_type_id ||
	    (info.map_flags & ~FLAGS_ALLOWED))
		return refuse(look, "fd.bpf.type", "BPF maps of this type, or with types of their own (BTF), cannot move yet", "close it first",
			refusals);
	if (used_by_program(info.id))
		return refuse(look, "fd.bpf.program", "a BPF program of this host uses it", "unload the program first", refusals);
	m = d->bpf_map = fd_alloc(sizeof(*m));
	gw__fd_bpf_map__init(m);
	m->type = info.type;
	m->key_size = info.key_size;
	m->value_size = info.value_size;
	m->max_entries = info.max_entries;
	m->map_flags = info.map_flags;
	m->map_extra = info.map_extra;
	m->name = fd_strdup(info.name);
	m->value_bytes = value_bytes(m->type, m->value_size);
	return 0;
}

static int read_entries(const struct fd_look *look, Gw__FdBpfMap *m, struct err *e)
{
	size_t room = 0, n = 0;
	cleanup_free uint8_t *key = fd_alloc(m->key_size);
	bool any = false;

	free(m->keys.data);
	free(m->values.data);
	m->keys = m->values = (ProtobufCBinaryData){ 0 };
	while (bpf_map_get_next_key(look->held, any ? key : NULL, key) == 0) {
		any = true;
		if (n == room) {
			room = room ? room * 2 : 64;
			if (room > ENTRIES_MAX * 2u || room * ((size_t)m->key_size + m->value_bytes) > CONTENTS_BYTES_MAX * 2ul)
				return err_set(e, -E2BIG, "fd %d: a BPF map of more than %u bytes", look->fd, CONTENTS_BYTES_MAX);
			m->keys.data = realloc(m->keys.data, room * m->key_size);
			m->values.data = realloc(m->values.data, room * m->value_bytes);
			if (!m->keys.data || !m->values.data)
				abort();
		}
		if (bpf_map_lookup_elem(look->held, key, m->values.data + n * m->value_bytes) < 0)
			continue;
		memcpy(m->keys.data + n++ * m->key_size, key, m->key_size);
		m->keys.len = n * m->key_size;
		m->values.len = n * m->value_bytes;
	}
	return errno == ENOENT ? 0 : err_sys(e, -errno, "fd %d: reading a BPF map", look->fd);
}

int bpf_map_capture(const struct fd_look *look, Gw__FdDesc *d, bool frozen, struct refusals *refusals, struct err *e)
{
	uint64_t value = 0;
	int r = d->bpf_map ? 0 : capture_static(look, d, refusals, e);

	if (r)
		return r;
	if ((d->flags & O_ACCMODE) != O_RDWR)
		return refuse(look, "fd.bpf.access", "it is open for reading or writing only, and such cannot move yet", "close it first",
			refusals);
	d->bpf_map->frozen = fdinfo_u64(look->info, "frozen", 10, &value) && value;
	return frozen ? read_entries(look, d->bpf_map, e) : 0;
}

int bpf_map_validate(const Gw__FdDesc *d, struct err *e)
{
	const Gw__FdBpfMap *m = d->bpf_map;

	if (!m || !can_carry(m->type) || !m->key_size || m->key_size > KEY_BYTES_MAX || !m->value_size || m->value_size > CONTENTS_BYTES_MAX ||
	    (m->map_flags & ~FLAGS_ALLOWED) || strlen(m->name) >= BPF_OBJ_NAME_LEN)
		return err_set(e, -EPROTO, "BPF map: type %u, key %u, value %u", m ? m->type : 0, m ? m->key_size : 0, m ? m->value_size : 0);
	if (m->value_bytes < m->value_size || m->keys.len % m->key_size || m->values.len % m->value_bytes ||
	    m->keys.len / m->key_size != m->values.len / m->value_bytes)
		return err_set(e, -EPROTO, "BPF map: %zu bytes of keys, %zu of values", m->keys.len, m->values.len);
	return 0;
}

int bpf_map_open(const Gw__FdDesc *d, int *ret_fd, struct err *e)
{
	const Gw__FdBpfMap *m = d->bpf_map;
	LIBBPF_OPTS(bpf_map_create_opts, options, .map_flags = m->map_flags, .map_extra = m->map_extra);
	int fd;

	if (m->value_bytes != value_bytes(m->type, m->value_size))
		return err_set(e, -EOPNOTSUPP, "BPF map %s: values of every CPU, and this host has another number of them", m->name);
	fd = bpf_map_create((enum bpf_map_type)m->type, m->name[0] ? m->name : NULL, m->key_size, m->value_size, m->max_entries, &options);
	if (fd < 0)
		return err_sys(e, -errno, "BPF map %s", m->name);
	*ret_fd = fd;
	return 0;
}

int bpf_map_fill(const Gw__FdDesc *d, int fd, struct err *e)
{
	const Gw__FdBpfMap *m = d->bpf_map;
	size_t n = m->keys.len / m->key_size;

	for (size_t i = 0; i < n; i++)
		if (bpf_map_update_elem(fd, m->keys.data + i * m->key_size, m->values.data + i * m->value_bytes, BPF_ANY) < 0)
			return err_sys(e, -errno, "BPF map %s: an entry", m->name);
	if (m->frozen && syscall(SYS_bpf, BPF_MAP_FREEZE, &(union bpf_attr){ .map_fd = (uint32_t)fd }, sizeof(union bpf_attr)) < 0)
		return err_sys(e, -errno, "BPF map %s: freezing it", m->name);
	return 0;
}

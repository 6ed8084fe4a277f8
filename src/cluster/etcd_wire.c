// SPDX-License-Identifier: LGPL-2.1-or-later
/* etcd_wire.c - see etcd_wire.h */
#include "cluster/etcd_wire.h"

#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "base/util.h"

#define TEXT_MAX 1024 /* of a key or value */
#define RECORDS_MAX 65536

static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/* RFC 4648, section 4. */
static void encode64(const char *text, size_t len, char ret[4 * (TEXT_MAX / 3 + 2)])
{
	for (size_t i = 0; i < len; i += 3) {
		uint32_t v = (uint32_t)(uint8_t)text[i] << 16;

		v |= i + 1 < len ? (uint32_t)(uint8_t)text[i + 1] << 8 : 0;
		v |= i + 2 < len ? (uint32_t)(uint8_t)text[i + 2] : 0;
		*ret++ = digits[v >> 18];
		*ret++ = digits[v >> 12 & 63];
		*ret++ = (char)(i + 1 < len ? digits[v >> 6 & 63] : '=');
		*ret++ = (char)(i + 2 < len ? digits[v & 63] : '=');
	}
	*ret = 0;
}

/* A text without zero bytes, of less than TEXT_MAX. */
static bool decode64(const char *text, char ret[TEXT_MAX])
{
	size_t len = strlen(text), n = 0;

	if (len % 4 || len / 4 * 3 >= TEXT_MAX)
		return false;
	for (size_t i = 0; i < len; i += 4) {
		uint32_t v = 0;
		size_t pad = i + 4 == len ? (size_t)(text[len - 1] == '=') + (text[len - 1] == '=' && text[len - 2] == '=') : 0;

		for (size_t j = 0; j < 4; j++) {
			const char *at = j + pad >= 4 ? digits : strchr(digits, text[i + j]);

			if (!at)
				return false;
			v = v << 6 | (uint32_t)(at - digits);
		}
		ret[n++] = (char)(v >> 16);
		if (pad < 2)
			ret[n++] = (char)(v >> 8);
		if (pad < 1)
			ret[n++] = (char)v;
	}
	ret[n] = 0;
	return strlen(ret) == n;
}

static json_t *base64(const char *text)
{
	char encoded[4 * (TEXT_MAX / 3 + 2)];

	encode64(text, MIN(strlen(text), (size_t)TEXT_MAX), encoded);
	return json_string(encoded);
}

static json_t *number(uint64_t value)
{
	char text[24];

	snprintf(text, sizeof(text), "%" PRIu64, value);
	return json_string(text);
}

/* A number, which the gateway writes as a text, and leaves out when it is 0. */
static bool read_number(const json_t *v, uint64_t *ret)
{
	const char *text = json_string_value(v);
	char *end;

	*ret = 0;
	if (!v)
		return true;
	if (json_is_integer(v) && json_integer_value(v) >= 0) {
		*ret = (uint64_t)json_integer_value(v);
		return true;
	}
	if (!text || *text < '0' || *text > '9')
		return false;
	errno = 0;
	*ret = strtoull(text, &end, 10);
	return !*end && !errno;
}

json_t *etcd_make_grant(unsigned lease_s)
{
	return json_pack("{s:o}", "TTL", number(lease_s));
}

json_t *etcd_make_lease(uint64_t lease)
{
	return json_pack("{s:o}", "ID", number(lease));
}

json_t *etcd_make_put(const char *key, const char *value, uint64_t lease)
{
	json_t *o = json_pack("{s:o, s:o}", "key", base64(key), "value", base64(value));

	if (lease)
		json_object_set_new(o, "lease", number(lease));
	return o;
}

json_t *etcd_make_range(const char *key, bool prefix)
{
	json_t *o = json_pack("{s:o}", "key", base64(key));
	char end[TEXT_MAX];
	size_t len = strlen(key);

	if (!prefix || !len || len >= sizeof(end))
		return o;
	strcpy(end, key);
	end[len - 1]++; /* the first one behind all that begin so: a prefix ends with '/' */
	json_object_set_new(o, "range_end", base64(end));
	return o;
}

static json_t *make_compare(const char *key, uint64_t revision)
{
	return json_pack("{s:o, s:s, s:s, s:o}", "key", base64(key), "target", "MOD", "result", "EQUAL", "mod_revision", number(revision));
}

json_t *etcd_make_swap(const char *key, uint64_t revision, const char *value)
{
	return etcd_make_swap_if(key, revision, value, NULL, 0);
}

json_t *etcd_make_swap_if(const char *key, uint64_t revision, const char *value, const char *other, uint64_t other_revision)
{
	json_t *compare = json_array();
	json_t *change = value ? json_pack("{s:o}", "requestPut", etcd_make_put(key, value, 0)) : json_pack("{s:{s:o}}", "requestDeleteRange", "key", base64(key));

	json_array_append_new(compare, make_compare(key, revision));
	if (other)
		json_array_append_new(compare, make_compare(other, other_revision));
	return json_pack("{s:o, s:[o]}", "compare", compare, "success", change);
}

char *etcd_node_value(const struct membership_node *node)
{
	char text[64], ip[INET_ADDRSTRLEN] = "";
	json_t *o;
	char *value;

	inet_ntop(AF_INET, node->address, ip, sizeof(ip));
	snprintf(text, sizeof(text), "%s:%u", ip, node->port);
	o = json_pack("{s:s}", "address", text);
	if (node->run[0])
		json_object_set_new(o, "run", json_string(node->run));
	value = json_dumps(o, JSON_COMPACT);
	json_decref(o);
	return value;
}

char *etcd_record_value(const struct membership_record *record)
{
	json_t *o = json_pack("{s:s, s:I}", "owner", record->owner, "moves", (json_int_t)record->moves);
	char *value;

	if (record->to[0])
		json_object_set_new(o, "to", json_string(record->to));
	value = json_dumps(o, JSON_COMPACT);
	json_decref(o);
	return value;
}

int etcd_read_lease(const json_t *answer, bool keepalive, uint64_t *ret, struct err *e)
{
	const json_t *o = keepalive ? json_object_get(answer, "result") : answer;
	uint64_t ttl;

	if (!json_is_object(o) || !read_number(json_object_get(o, "ID"), ret) || !read_number(json_object_get(o, "TTL"), &ttl))
		return err_set(e, -EPROTO, "etcd: an answer about a lease that is none");
	if (!ttl)
		*ret = 0;
	return 0;
}

/* A pair of an answer: the key behind the prefix, and the value as JSON (the caller's reference). */
static json_t *read_pair(const json_t *pair, const char *prefix, char ret_name[TEXT_MAX], uint64_t *ret_revision)
{
	const char *key64 = json_string_value(json_object_get(pair, "key")), *value64 = json_string_value(json_object_get(pair, "value"));
	char key[TEXT_MAX], value[TEXT_MAX];

	if (!key64 || !value64 || !decode64(key64, key) || !decode64(value64, value) || strncmp(key, prefix, strlen(prefix)) != 0 ||
	    !read_number(json_object_get(pair, "mod_revision"), ret_revision) || !*ret_revision)
		return NULL;
	strcpy(ret_name, key + strlen(prefix));
	return json_loads(value, 0, NULL);
}

static int pairs_of(const json_t *answer, size_t max, const json_t **ret, struct err *e)
{
	const json_t *kvs = json_object_get(answer, "kvs");

	if (!json_is_object(answer) || (kvs && (!json_is_array(kvs) || json_array_size(kvs) > max)))
		return err_set(e, -EPROTO, "etcd: an answer without a list of at most %zu pairs", max);
	*ret = kvs;
	return 0;
}

static bool is_name(const char *text)
{
	size_t n = strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-");

	return n > 0 && n <= GOSSIP_NAME_MAX && !text[n];
}

/* "10.0.0.1:4470" */
static bool read_address(const char *text, struct membership_node *ret)
{
	char ip[INET_ADDRSTRLEN] = "", *end;
	const char *colon = text ? strchr(text, ':') : NULL;
	unsigned long port;

	if (!colon || (size_t)(colon - text) >= sizeof(ip))
		return false;
	memcpy(ip, text, (size_t)(colon - text));
	port = strtoul(colon + 1, &end, 10);
	ret->port = (uint16_t)port;
	return inet_pton(AF_INET, ip, ret->address) == 1 && colon[1] >= '0' && colon[1] <= '9' && !*end && port > 0 && port < 65536;
}

static void read_run(const char *text, char ret[MEMBERSHIP_RUN_MAX])
{
	size_t n = text ? strspn(text, "0123456789abcdef") : 0;

	ret[0] = 0;
	if (n && n < MEMBERSHIP_RUN_MAX && !text[n])
		strcpy(ret, text);
}

/* What others have written under the prefix and is no node is left out: one bad entry must not hide the others. */
int etcd_read_nodes(const json_t *answer, const char *prefix, struct membership_node **ret, size_t *ret_n, struct err *e)
{
	const json_t *kvs, *pair;
	struct membership_node *nodes;
	size_t i, n = 0;

	if (pairs_of(answer, MEMBERSHIP_NODES_MAX, &kvs, e) < 0)
		return e ? e->code : -EPROTO;
	nodes = calloc(json_array_size(kvs) + 1, sizeof(*nodes));
	if (!nodes)
		return err_sys(e, -ENOMEM, "etcd: nodes");
	json_array_foreach(kvs, i, pair) {
		char name[TEXT_MAX];
		uint64_t revision;
		json_t *value = read_pair(pair, prefix, name, &revision);

		if (value && is_name(name) && read_address(json_string_value(json_object_get(value, "address")), &nodes[n])) {
			read_run(json_string_value(json_object_get(value, "run")), nodes[n].run);
			nodes[n].revision = revision;
			strcpy(nodes[n++].name, name);
		}
		json_decref(value);
	}
	*ret = nodes;
	*ret_n = n;
	return 0;
}

static bool read_record(const json_t *pair, const char *prefix, struct membership_record *ret)
{
	char name[TEXT_MAX];
	json_t *value = read_pair(pair, prefix, name, &ret->fence);
	const char *owner = json_string_value(json_object_get(value, "owner"));
	const json_t *to = json_object_get(value, "to");
	bool good = value && *name && strlen(name) < sizeof(ret->unit) && owner && is_name(owner) && read_number(json_object_get(value, "moves"), &ret->moves);

	good = good && (!to || (json_string_value(to) && is_name(json_string_value(to))));
	if (good) {
		strcpy(ret->unit, name);
		strcpy(ret->owner, owner);
		strcpy(ret->to, to ? json_string_value(to) : "");
	}
	json_decref(value);
	return good;
}

/* A record that cannot be read is an error: it says whose a unit is. */
int etcd_read_records(const json_t *answer, const char *prefix, struct membership_record **ret, size_t *ret_n, struct err *e)
{
	const json_t *kvs, *pair;
	struct membership_record *records;
	size_t i;

	if (pairs_of(answer, RECORDS_MAX, &kvs, e) < 0)
		return e ? e->code : -EPROTO;
	records = calloc(json_array_size(kvs) + 1, sizeof(*records));
	if (!records)
		return err_sys(e, -ENOMEM, "etcd: records");
	json_array_foreach(kvs, i, pair) {
		if (read_record(pair, prefix, &records[i]))
			continue;
		free(records);
		return err_set(e, -EPROTO, "etcd: record %zu below %s is none: somebody else writes there?", i, prefix);
	}
	*ret = records;
	*ret_n = json_array_size(kvs);
	return 0;
}

int etcd_read_swap(const json_t *answer, bool *ret_done, uint64_t *ret_revision, struct err *e)
{
	const json_t *done = json_object_get(answer, "succeeded");
	uint64_t revision;

	if (!json_is_object(answer) || (done && !json_is_boolean(done)) || !read_number(json_object_get(json_object_get(answer, "header"), "revision"), &revision) || !revision)
		return err_set(e, -EPROTO, "etcd: an answer to a transaction that is none");
	*ret_done = json_is_true(done);
	*ret_revision = revision;
	return 0;
}

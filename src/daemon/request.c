// SPDX-License-Identifier: GPL-2.0-or-later
/* request.c - reading a client's request; see request.h */
#include "daemon/request.h"

#include <ctype.h>
#include <errno.h>
#include <jansson.h>
#include <limits.h>
#include <string.h>

#include "base/util.h"
#include "wire/hello.h"

static const char *const verbs[] = {
	[VERB_MIGRATE] = "migrate", [VERB_PS] = "ps", [VERB_NODES] = "nodes", [VERB_CHECK] = "check", [VERB_CANCEL] = "cancel",
	[VERB_CONNECTIONS] = "connections", [VERB_SELECT] = "select", [VERB_DRAIN] = "drain", [VERB_UNDRAIN] = "undrain", [VERB_STARTED] = "started", [VERB_BALANCE] = "balance",
	[VERB_ADDRESS] = "address", [VERB_CHECKPOINT] = "checkpoint", [VERB_RESTORE] = "restore", [VERB_PROTECT] = "protect", [VERB_UNPROTECT] = "unprotect", [VERB_FAILOVER] = "failover", [VERB_HISTORY] = "history", [VERB_METRICS] = "metrics", [VERB_BRIDGE] = "bridge", [VERB_OUTCOME] = "outcome", [VERB_PLAN] = "plan",
};

static int read_verb(const json_t *o, struct request *request, struct err *e)
{
	const char *verb = json_string_value(json_object_get(o, "verb"));
	size_t i;

	if (!verb)
		return err_set(e, -EINVAL, "the request has no \"verb\"");
	for (i = 0; i < ARRAY_SIZE(verbs); i++) {
		if (strcmp(verb, verbs[i]))
			continue;
		request->verb = (enum verb)i;
		return 0;
	}
	return err_set(e, -EINVAL, "unknown verb \"%.40s\"; known are migrate, ps, nodes, check, connections, select, drain, undrain, balance, started, address, checkpoint, restore, protect, unprotect, failover, history, metrics, bridge, outcome, plan", verb);
}

/* An integer member from min to max; absent: untouched. */
static int read_number(const json_t *o, const char *key, json_int_t min, json_int_t max, json_int_t *ret)
{
	const json_t *v = json_object_get(o, key);

	if (!v)
		return 0;
	if (!json_is_integer(v) || json_integer_value(v) < min || json_integer_value(v) > max)
		return -EINVAL;
	*ret = json_integer_value(v);
	return 0;
}

static int read_host(const json_t *o, struct request *request, struct err *e)
{
	const char *host = json_string_value(json_object_get(o, "host"));
	size_t i, len = host ? strlen(host) : 0;

	if (!len || len >= sizeof(request->host))
		return err_set(e, -EINVAL, "\"host\" must be a text of 1 to %zu bytes", sizeof(request->host) - 1);
	for (i = 0; i < len; i++)
		if (!isalnum((unsigned char)host[i]) && !strchr("._-:", host[i]))
			return err_set(e, -EINVAL, "\"host\" has a character that no host name has");
	memcpy(request->host, host, len + 1);
	return 0;
}

/* HOME:PID */
static int read_unit(const json_t *o, struct request *request, struct err *e)
{
	const json_t *v = json_object_get(o, "unit");
	const char *unit = json_string_value(v), *colon = unit ? strrchr(unit, ':') : NULL;
	char home[HELLO_NAME_MAX + 2] = "";
	size_t digits = colon ? strspn(colon + 1, "0123456789") : 0;

	if (!v)
		return 0;
	if (colon && (size_t)(colon - unit) < sizeof(home))
		memcpy(home, unit, (size_t)(colon - unit));
	if (!hello_name_valid(home) || !digits || digits > 10 || colon[1 + digits])
		return err_set(e, -EINVAL, "\"unit\" must be the name of a unit: HOME:PID");
	snprintf(request->unit, sizeof(request->unit), "%s", unit);
	return 0;
}

static int read_take(const json_t *o, struct request *request, struct err *e)
{
	const json_t *take = json_object_get(o, "take");

	if (take && !json_is_boolean(take))
		return err_set(e, -EINVAL, "\"take\" must be true or false");
	request->take = json_is_true(take);
	return 0;
}

static int read_select(const json_t *o, struct request *request, struct err *e)
{
	const json_t *v = json_object_get(o, "require");
	struct require parsed;

	if (v && !json_is_string(v))
		return err_set(e, -EINVAL, "\"require\" must be a text");
	if (read_take(o, request, e) < 0)
		return e->code;
	if (!v)
		return 0;
	if (strlen(json_string_value(v)) < sizeof(request->require))
		strcpy(request->require, json_string_value(v));
	return require_parse(&parsed, json_string_value(v), e); /* which refuses what is longer */
}

static int read_here(const json_t *o, struct request *request, struct err *e)
{
	const json_t *here = json_object_get(o, "here");

	if (here && !json_is_boolean(here))
		return err_set(e, -EINVAL, "\"here\" must be true or false");
	request->here = json_is_true(here);
	return 0;
}

/* One line of text for people. */
static int read_reason(const json_t *o, struct request *request, struct err *e)
{
	const json_t *v = json_object_get(o, "reason");
	const char *text = v ? json_string_value(v) : "";

	if (!text || strlen(text) >= sizeof(request->reason))
		return err_set(e, -EINVAL, "\"reason\" must be a text of at most %zu bytes", sizeof(request->reason) - 1);
	for (const char *p = text; *p; p++)
		if (*p < ' ' || *p > '~')
			return err_set(e, -EINVAL, "\"reason\" must be one line of ASCII text");
	strcpy(request->reason, text);
	return read_here(o, request, e);
}

static int read_also(const json_t *o, struct request *request, struct err *e)
{
	const json_t *also = json_object_get(o, "also"), *v;
	size_t i;

	if (also && (!json_is_array(also) || json_array_size(also) > REQUEST_ALSO_MAX))
		return err_set(e, -EINVAL, "\"also\" must be a list of at most %u process numbers", REQUEST_ALSO_MAX);
	json_array_foreach(also, i, v) {
		if (!json_is_integer(v) || json_integer_value(v) < 1 || json_integer_value(v) > INT_MAX)
			return err_set(e, -EINVAL, "\"also\" must be a list of numbers from 1 on");
		request->also[request->n_also++] = (pid_t)json_integer_value(v);
	}
	return 0;
}

static int read_drain(const json_t *o, struct request *request, struct err *e)
{
	json_int_t parallel = REQUEST_PARALLEL_DEFAULT;

	if (json_object_get(o, "host") && read_host(o, request, e) < 0)
		return e->code;
	if (read_number(o, "parallel", 1, REQUEST_PARALLEL_MAX, &parallel) < 0)
		return err_set(e, -EINVAL, "\"parallel\" must be a number from 1 to %u", REQUEST_PARALLEL_MAX);
	request->parallel = (unsigned)parallel;
	return read_also(o, request, e);
}

static int read_balance(const json_t *o, struct request *request, struct err *e)
{
	static const char *const actions[] = { [BALANCE_STATUS] = "status", [BALANCE_ON] = "on", [BALANCE_OFF] = "off", [BALANCE_EXPLAIN] = "explain" };
	const char *action = json_string_value(json_object_get(o, "action"));
	size_t i = 0;

	while (i < ARRAY_SIZE(actions) && (!action || strcmp(action, actions[i]) != 0))
		i++;
	if (i == ARRAY_SIZE(actions))
		return err_set(e, -EINVAL, "\"action\" must be status, on, off or explain");
	request->action = (enum balance_action)i;
	if (request->action != BALANCE_EXPLAIN)
		return json_object_get(o, "host") ? read_host(o, request, e) : 0;
	if (read_unit(o, request, e) < 0)
		return e->code;
	return !request->pid == !request->unit[0] ? err_set(e, -EINVAL, "explain needs a \"pid\" or a \"unit\"") : 0;
}

static int read_addresses(const json_t *o, struct request *request, struct err *e)
{
	const json_t *list = json_object_get(o, "addresses"), *one;
	size_t i;
	int r = 0;

	if (!request->pid)
		return err_set(e, -EINVAL, "address needs a \"pid\"");
	if (!json_array_size(list) || json_array_size(list) > OWNED_MAX)
		return err_set(e, -EINVAL, "\"addresses\" must be a list of 1 to %u texts", OWNED_MAX);
	json_array_foreach(list, i, one)
		if (r == 0)
			r = json_is_string(one) ? address_parse(json_string_value(one), &request->addresses[i], e) : err_set(e, -EINVAL, "an address must be a text");
	request->n_addresses = i;
	return r;
}

static int read_flag(const json_t *o, const char *key, bool *ret, struct err *e)
{
	const json_t *v = json_object_get(o, key);

	if (v && !json_is_boolean(v))
		return err_set(e, -EINVAL, "\"%s\" must be true or false", key);
	*ret = json_is_true(v);
	return 0;
}

static int read_path(const json_t *o, struct request *request, struct err *e)
{
	const char *path = json_string_value(json_object_get(o, "path"));

	if (!path || path[0] != '/' || strlen(path) >= sizeof(request->path))
		return err_set(e, -EINVAL, "\"path\" must be an absolute path of at most %zu bytes", sizeof(request->path) - 1);
	strcpy(request->path, path);
	return 0;
}

static int read_hex(char c)
{
	return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Of an encrypted image; absent: it is not. */
static int read_key(const json_t *o, struct request *request, struct err *e)
{
	const json_t *key = json_object_get(o, "key");
	const char *text = json_string_value(key);
	bool good = text && strlen(text) == 2 * ARCHIVE_KEY_BYTES;

	if (!key)
		return 0;
	for (size_t i = 0; good && i < ARCHIVE_KEY_BYTES; i++) {
		int high = read_hex(text[2 * i]), low = read_hex(text[2 * i + 1]);

		good = high >= 0 && low >= 0;
		request->key.bytes[i] = (uint8_t)((unsigned)high << 4 | (unsigned)low);
	}
	request->has_key = good;
	return good ? 0 : err_set(e, -EINVAL, "\"key\" must be a text of %u hexadecimal digits", 2 * ARCHIVE_KEY_BYTES);
}

static int read_policies(const json_t *o, struct request *request, struct err *e)
{
	const json_t *strategy = json_object_get(o, "strategy"), *files = json_object_get(o, "files"), *tcp = json_object_get(o, "tcp");
	int r = 0;

	if (json_object_get(o, "portable"))
		r = read_flag(o, "portable", &request->portable, e);
	if (r == 0 && files)
		r = json_is_string(files) ? fsfile_policy_parse(json_string_value(files), &request->files, e) :
			err_set(e, -EINVAL, "\"files\" must be a text");
	if (r == 0 && tcp)
		r = json_is_string(tcp) ? tcp_outside_policy_parse(json_string_value(tcp), &request->tcp, e) : err_set(e, -EINVAL, "\"tcp\" must be a text");
	if (r < 0 || !strategy)
		return r;
	if (!json_is_string(strategy))
		return err_set(e, -EINVAL, "\"strategy\" must be a text");
	return strategy_parse(json_string_value(strategy), &request->strategy, e);
}

/* Of a program that has been moved by its state, and does not know whether it has left. */
static int read_outcome(const json_t *o, struct request *request, struct err *e)
{
	const char *id = json_string_value(json_object_get(o, "migration"));

	if (!id || strlen(id) != 2 * HELLO_MIG_ID_BYTES || strspn(id, "0123456789abcdef") != strlen(id))
		return err_set(e, -EINVAL, "\"migration\" must be %u hexadecimal digits", 2 * HELLO_MIG_ID_BYTES);
	memcpy(request->migration, id, sizeof(request->migration));
	return read_host(o, request, e);
}

/* A copy's: godwit-protect says where the index is. */
static int read_chain(const json_t *o, struct request *request, struct err *e)
{
	const char *chain = json_string_value(json_object_get(o, "chain")), *name = json_string_value(json_object_get(o, "name"));

	if (request->incremental && request->has_key)
		return err_set(e, -EINVAL, "an incremental image cannot be encrypted: leave out --key, or --incremental");
	if (!chain && !name)
		return 0;
	if (!chain || !name || !request->incremental || chain[0] != '/' || strlen(chain) >= sizeof(request->chain) || strlen(name) >= sizeof(request->name))
		return err_set(e, -EINVAL, "\"chain\" and \"name\" belong together, to an incremental copy");
	snprintf(request->chain, sizeof(request->chain), "%s", chain);
	snprintf(request->name, sizeof(request->name), "%s", name);
	return 0;
}

/* Nothing of the memory may come later: it could only come from a process that is no longer there. */
static int read_checkpoint(const json_t *o, struct request *request, struct err *e)
{
	int r = read_unit(o, request, e);

	if (r == 0 && !request->pid == !request->unit[0])
		r = err_set(e, -EINVAL, "checkpoint needs a \"pid\" or a \"unit\"");
	if (r == 0)
		r = read_path(o, request, e);
	if (r == 0)
		r = read_key(o, request, e);
	if (r == 0)
		r = read_flag(o, "keep_running", &request->keep_running, e);
	if (r == 0)
		r = read_flag(o, "store", &request->store, e);
	if (r == 0)
		r = read_flag(o, "copy", &request->copy, e);
	if (r == 0)
		r = read_flag(o, "incremental", &request->incremental, e);
	if (r == 0)
		r = read_chain(o, request, e);
	request->strategy = request->keep_running ? STRATEGY_PRE_COPY : STRATEGY_STOP_COPY;
	if (r == 0)
		r = read_policies(o, request, e);
	if (r == 0 && request->strategy != STRATEGY_PRE_COPY && request->strategy != STRATEGY_STOP_COPY)
		r = err_set(e, -EINVAL, "an image is taken by pre-copy or stop-copy, not by %s", strategy_name(request->strategy));
	if (r == 0 && request->files != FSFILE_POLICY_AUTO && request->files != FSFILE_POLICY_COPY)
		r = err_set(e, -EINVAL, "files of an image are treated by auto or copy, not by %s", fsfile_policy_name(request->files));
	return r;
}

static int read_restore(const json_t *o, struct request *request, struct err *e)
{
	int r = read_path(o, request, e);

	if (r == 0)
		r = read_key(o, request, e);
	if (r == 0)
		r = read_flag(o, "accept_changed", &request->accept_changed, e);
	return r == 0 && json_object_get(o, "host") ? read_host(o, request, e) : r;
}

/* Names of nodes. */
static int read_names(const json_t *list, size_t max, char ret[][HELLO_NAME_MAX + 1], size_t *ret_n, struct err *e)
{
	const json_t *one;
	size_t i;

	if (list && (!json_is_array(list) || json_array_size(list) > max))
		return err_set(e, -EINVAL, "a list of at most %zu nodes is expected", max);
	json_array_foreach(list, i, one) {
		if (!json_is_string(one) || !hello_name_valid(json_string_value(one)))
			return err_set(e, -EINVAL, "a node's name has 1 to %u letters, digits, '.', '_', '-'", HELLO_NAME_MAX);
		strcpy(ret[(*ret_n)++], json_string_value(one));
	}
	return 0;
}

static int read_protect(const json_t *o, struct request *request, struct err *e)
{
	json_int_t every_ms = 0, copies = 1;
	struct protection *p = &request->protection, whole;
	int r = read_unit(o, request, e);

	if (r == 0 && !request->pid == !request->unit[0])
		r = err_set(e, -EINVAL, "a \"pid\" or a \"unit\" is needed");
	if (r < 0 || request->verb == VERB_UNPROTECT)
		return r;
	if (read_number(o, "every_ms", PROTECTION_EVERY_MIN_MS, PROTECTION_EVERY_MAX_MS, &every_ms) < 0 || !every_ms)
		return err_set(e, -EINVAL, "\"every_ms\" must be a number from %u to %u (a day)", PROTECTION_EVERY_MIN_MS, PROTECTION_EVERY_MAX_MS);
	r = read_names(json_object_get(o, "to"), PROTECTION_COPIES_MAX, p->to, &p->n_to, e);
	if (r < 0)
		return r;
	copies = p->n_to ? (json_int_t)p->n_to : 1;
	if (read_number(o, "copies", 1, PROTECTION_COPIES_MAX, &copies) < 0)
		return err_set(e, -EINVAL, "\"copies\" must be a number from 1 to %u", PROTECTION_COPIES_MAX);
	p->every_ms = (unsigned)every_ms;
	p->copies = (unsigned)copies;
	r = read_policies(o, request, e);
	p->files = request->files;
	p->tcp = request->tcp;
	whole = *p;
	if (r == 0)
		r = protection_new_id(&whole, e);
	return r < 0 ? r : protection_check(&whole, e);
}

static int read_failover(const json_t *o, struct request *request, struct err *e)
{
	int r = read_names(json_object_get(o, "nodes"), REQUEST_NODES_MAX, request->nodes, &request->n_nodes, e);

	return r == 0 && !request->n_nodes ? err_set(e, -EINVAL, "failover needs \"nodes\": those that have failed") : r;
}

static int read_history(const json_t *o, struct request *request, struct err *e)
{
	json_int_t last = REQUEST_LAST_DEFAULT;
	int r = read_here(o, request, e);

	if (r == 0)
		r = read_unit(o, request, e);
	if (r == 0 && request->pid && request->unit[0])
		r = err_set(e, -EINVAL, "a \"pid\" or a \"unit\", not both");
	if (r == 0 && read_number(o, "last", 0, REQUEST_LAST_MAX, &last) < 0)
		r = err_set(e, -EINVAL, "\"last\" must be a number from 0 to %u", REQUEST_LAST_MAX);
	request->last = (unsigned)last;
	return r;
}

/* A text without blanks; absent: "". */
static int read_word(const json_t *o, const char *key, char *ret, size_t size, bool blanks, struct err *e)
{
	const json_t *v = json_object_get(o, key);
	const char *text = v ? json_string_value(v) : "";

	if (!text || strlen(text) >= size)
		return err_set(e, -EINVAL, "\"%s\" must be a text of at most %zu bytes", key, size - 1);
	for (const char *p = text; *p; p++)
		if (*p < ' ' || *p > '~' || (*p == ' ' && !blanks))
			return err_set(e, -EINVAL, "\"%s\" has a character that is not allowed there", key);
	strcpy(ret, text);
	return 0;
}

static int read_bridge(const json_t *o, struct request *request, struct err *e)
{
	static const char *const actions[] = { [BRIDGE_LIST] = "list", [BRIDGE_OPEN_HERE] = "open", [BRIDGE_SERVE] = "serve", [BRIDGE_SHUT] = "close" };
	const char *action = json_string_value(json_object_get(o, "action"));
	size_t i = 0;

	while (i < ARRAY_SIZE(actions) && (!action || strcmp(action, actions[i]) != 0))
		i++;
	if (i == ARRAY_SIZE(actions))
		return err_set(e, -EINVAL, "\"action\" must be list, open, serve or close");
	request->bridge = (enum bridge_action)i;
	if (read_word(o, "how", request->how, sizeof(request->how), false, e) < 0 || read_word(o, "ssh", request->ssh, sizeof(request->ssh), true, e) < 0 ||
	    read_flag(o, "kept", &request->kept, e) < 0)
		return e->code;
	return request->bridge == BRIDGE_SHUT ? read_host(o, request, e) : 0;
}

/* Only another node is believed (client.c). */
static int read_caller(const json_t *o, struct request *request, struct err *e)
{
	const json_t *as = json_object_get(o, "as"), *uid = json_array_get(as, 0), *gid = json_array_get(as, 1);

	if (!as)
		return 0;
	if (json_array_size(as) != 2 || !json_is_integer(uid) || !json_is_integer(gid) || json_integer_value(uid) < 0 || json_integer_value(uid) > UINT32_MAX || json_integer_value(gid) < 0 ||
	    json_integer_value(gid) > UINT32_MAX)
		return err_set(e, -EINVAL, "\"as\" must be a user and a group number");
	request->caller = (struct caller){ true, (uid_t)json_integer_value(uid), (gid_t)json_integer_value(gid) };
	return 0;
}

static int read_members(const json_t *o, struct request *request, struct err *e)
{
	json_int_t pid = 0, timeout_ms = 0, hops = 0;
	int r = read_verb(o, request, e);

	if (r == 0)
		r = read_caller(o, request, e);
	if (r < 0)
		return r;
	if (read_number(o, "pid", 1, INT_MAX, &pid) < 0)
		return err_set(e, -EINVAL, "\"pid\" must be a number from 1 on");
	if (read_number(o, "timeout_ms", 0, REQUEST_TIMEOUT_MAX_MS, &timeout_ms) < 0)
		return err_set(e, -EINVAL, "\"timeout_ms\" must be a number from 0 to %u (a day)", REQUEST_TIMEOUT_MAX_MS);
	if (read_number(o, "hops", 0, REQUEST_HOPS_MAX, &hops) < 0)
		return err_set(e, -ELOOP, "the request has been handed on from node to node too often");
	request->pid = (pid_t)pid;
	request->hops = (unsigned)hops;
	request->timeout_ms = (unsigned)timeout_ms;
	if ((request->verb == VERB_CHECK || request->verb == VERB_MIGRATE || request->verb == VERB_PLAN || request->verb == VERB_CHECKPOINT) && request->pid && read_also(o, request, e) < 0)
		return e->code;
	if (request->verb == VERB_CHECK && request->pid && json_object_get(o, "host"))
		return read_host(o, request, e);
	if (request->verb == VERB_SELECT)
		return read_select(o, request, e);
	if (request->verb == VERB_PLAN && json_object_get(o, "drain") && read_flag(o, "drain", &request->drain, e) < 0)
		return e->code;
	if (request->verb == VERB_DRAIN || request->verb == VERB_UNDRAIN || request->drain)
		return read_drain(o, request, e);
	if (request->verb == VERB_BALANCE)
		return read_balance(o, request, e);
	if (request->verb == VERB_STARTED)
		return request->pid ? read_take(o, request, e) : err_set(e, -EINVAL, "started needs a \"pid\"");
	if (request->verb == VERB_ADDRESS)
		return read_addresses(o, request, e);
	if (request->verb == VERB_PS)
		return read_here(o, request, e);
	if (request->verb == VERB_CHECKPOINT)
		return read_checkpoint(o, request, e);
	if (request->verb == VERB_RESTORE)
		return read_restore(o, request, e);
	if (request->verb == VERB_PROTECT || request->verb == VERB_UNPROTECT)
		return read_protect(o, request, e);
	if (request->verb == VERB_BRIDGE)
		return read_bridge(o, request, e);
	if (request->verb == VERB_FAILOVER)
		return read_failover(o, request, e);
	if (request->verb == VERB_OUTCOME)
		return read_outcome(o, request, e);
	if (request->verb == VERB_HISTORY)
		return read_history(o, request, e);
	if (request->verb != VERB_MIGRATE && request->verb != VERB_PLAN)
		return 0;
	r = read_reason(o, request, e);
	if (r == 0)
		r = read_unit(o, request, e);
	if (r == 0 && !pid == !request->unit[0])
		r = err_set(e, -EINVAL, "a \"pid\" or a \"unit\" is needed");
	if (r == 0)
		r = read_host(o, request, e);
	return r < 0 ? r : read_policies(o, request, e);
}

int request_parse(const char *line, size_t len, struct request *ret, struct err *e)
{
	struct request request = { .strategy = STRATEGY_FREEZE_FREE, .tcp = TCP_OUTSIDE_KEEP };
	json_error_t where;
	json_t *o;
	int r;

	if (len > REQUEST_BYTES_MAX)
		return err_set(e, -EINVAL, "the request is longer than %u bytes", REQUEST_BYTES_MAX);
	o = json_loadb(line, len, JSON_REJECT_DUPLICATES, &where);
	if (!o)
		return err_set(e, -EINVAL, "the request is not JSON: %.100s at byte %d", where.text, where.position);
	r = json_is_object(o) ? read_members(o, &request, e) : err_set(e, -EINVAL, "the request is no JSON object");
	json_decref(o);
	if (r < 0)
		return r;
	*ret = request;
	return 0;
}

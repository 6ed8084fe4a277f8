// SPDX-License-Identifier: GPL-2.0-or-later
/* config.c - reading godwit.conf with inih; see config.h */
#include "daemon/config.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <ini.h>
#include <sys/stat.h>

#include "base/cpu.h"
#include "base/util.h"
#include "cluster/require.h"
#include "image/secret.h"
#include "wire/conn.h"
#include "wire/tls_identity.h"

#define PEER_TIMEOUT_MIN_MS 500u
#define PEER_TIMEOUT_MAX_MS 3600000u
#define DRAIN_TIMEOUT_MIN_MS 1000u
#define DRAIN_TIMEOUT_MAX_MS 3600000u
#define DRAIN_TIMEOUT_MS 60000u /* below the 90 s that systemd waits for the end of a service */
#define OWNER_IDLE_MIN_MS 1000u
#define OWNER_IDLE_MAX_MS 86400000u
#define OWNER_IDLE_MS 900000u
#define SPEED_MIN 0.01
#define ETCD_LEASE_S 10u
#define ETCD_LEASE_MIN_S 3
#define ETCD_LEASE_MAX_S 600
#define SPEED_MAX 1000.0
#define PROTECT_MIB_MAX (1ull << 40)

struct reading {
	struct config *config;
	struct err error; /* of the first line that is wrong */
};

void config_init(struct config *config)
{
	char host[HELLO_NAME_MAX + 1] = "";

	*config = (struct config){ .speed = 1, .keeps = true, .peer_timeout_ms = CONN_DEAD_PEER_MS, .drain_timeout_ms = DRAIN_TIMEOUT_MS, .owner_idle_ms = OWNER_IDLE_MS, .listen = { .sin_family = AF_INET, .sin_port = htons(CONN_DEFAULT_PORT) } };
	gethostname(host, sizeof(host) - 1);
	host[strcspn(host, ".")] = 0;
	snprintf(config->name, sizeof(config->name), "%s", hello_name_valid(host) ? host : "localhost");
	strcpy(config->busy, CONFIG_DEFAULT_BUSY);
	strcpy(config->etcd.prefix, "/godwit/");
	strcpy(config->api_tokens, CONFIG_DEFAULT_TOKENS);
	config->etcd.lease_s = ETCD_LEASE_S;
	config->transfer = policy_default.transfer;
	config->location = policy_default.location;
}

const struct config_node *config_find(const struct config *config, const char *name)
{
	size_t i;

	for (i = 0; i < config->n_nodes; i++)
		if (!strcmp(config->nodes[i].name, name))
			return &config->nodes[i];
	return NULL;
}

static size_t label_word(const char *s)
{
	size_t n = 0;

	while (isalnum((unsigned char)s[n]) || (s[n] && strchr("._-", s[n])))
		n++;
	return n;
}

bool config_labels_valid(const char *labels)
{
	const char *p = labels;

	if (strlen(labels) > CONFIG_LABELS_MAX)
		return false;
	while (*p) {
		size_t n = label_word(p);

		if (!n || !isalpha((unsigned char)*p))
			return false;
		p += n;
		if (*p == '=') {
			n = label_word(++p);
			if (!n)
				return false;
			p += n;
		}
		if (*p && (*p++ != ' ' || !*p))
			return false;
	}
	return true;
}

static int read_bool(const char *key, const char *value, bool *ret, struct err *e)
{
	if (strcmp(value, "yes") != 0 && strcmp(value, "no") != 0)
		return err_set(e, -EINVAL, "%s '%.80s': use yes or no", key, value);
	*ret = !strcmp(value, "yes");
	return 0;
}

static int read_ms(const char *key, const char *value, unsigned min, unsigned max, unsigned *ret, struct err *e)
{
	char *end;
	unsigned long ms = strtoul(value, &end, 10);

	if (value[0] < '0' || value[0] > '9' || *end || ms < min || ms > max)
		return err_set(e, -EINVAL, "%s '%.80s': use a number of milliseconds from %u to %u", key, value, min, max);
	*ret = (unsigned)ms;
	return 0;
}

static int read_busy(struct config *config, const char *value, struct err *e)
{
	struct require parsed;
	int r = strlen(value) > CONFIG_BUSY_MAX ? err_set(e, -EINVAL, "longer than %d bytes", CONFIG_BUSY_MAX) : require_parse(&parsed, value, e);

	if (r < 0)
		return err_wrap(e, "busy");
	snprintf(config->busy, sizeof(config->busy), "%s", value);
	return 0;
}

static int read_path(const char *key, const char *value, char *ret, size_t size, struct err *e)
{
	if (value[0] != '/' || strlen(value) >= size)
		return err_set(e, -EINVAL, "%s '%.80s': use a path that begins with / and has less than %zu bytes", key, value, size);
	snprintf(ret, size, "%s", value);
	return 0;
}

/* As uname(2) says it. */
static int read_arch(struct config *config, const char *value, struct err *e)
{
	size_t len = strlen(value);

	if (!len || len > CONFIG_ARCH_MAX || strspn(value, "abcdefghijklmnopqrstuvwxyz0123456789_") != len)
		return err_set(e, -EINVAL, "arch '%.80s': use what `uname -m` says there, such as x86_64 or aarch64", value);
	memcpy(config->arch, value, len + 1);
	return 0;
}

static int read_node_key(struct config *config, const char *key, const char *value, struct err *e)
{
	struct sockaddr_in address;
	char text[64];
	int r;

	if (!strcmp(key, "name")) {
		if (!hello_name_valid(value))
			return err_set(e, -EINVAL, "name '%.80s': use 1 to %u letters, digits, '.', '_', '-'", value, HELLO_NAME_MAX);
		memcpy(config->name, value, strlen(value) + 1);
		return 0;
	}
	if (!strcmp(key, "listen")) {
		r = conn_address_parse(value, &address, e);
		if (r < 0)
			return r;
		config->listen.sin_addr = address.sin_addr;
		if (strchr(value, ':'))
			config->listen.sin_port = address.sin_port;
		return 0;
	}
	if (!strcmp(key, "port")) {
		snprintf(text, sizeof(text), "0.0.0.0:%.40s", value);
		r = conn_address_parse(text, &address, e);
		if (r < 0)
			return r;
		config->listen.sin_port = address.sin_port;
		return 0;
	}
	if (!strcmp(key, "peer_timeout_ms"))
		return read_ms(key, value, PEER_TIMEOUT_MIN_MS, PEER_TIMEOUT_MAX_MS, &config->peer_timeout_ms, e);
	if (!strcmp(key, "workstation"))
		return read_bool(key, value, &config->workstation, e);
	if (!strcmp(key, "owner_idle_ms"))
		return read_ms(key, value, OWNER_IDLE_MIN_MS, OWNER_IDLE_MAX_MS, &config->owner_idle_ms, e);
	if (!strcmp(key, "drain_at_stop"))
		return read_bool(key, value, &config->drain_at_stop, e);
	if (!strcmp(key, "drain_timeout_ms"))
		return read_ms(key, value, DRAIN_TIMEOUT_MIN_MS, DRAIN_TIMEOUT_MAX_MS, &config->drain_timeout_ms, e);
	if (!strcmp(key, "speed")) {
		char *end;

		config->speed = strtod(value, &end);
		if (value[0] < '0' || value[0] > '9' || *end || config->speed < SPEED_MIN || config->speed > SPEED_MAX)
			return err_set(e, -EINVAL, "speed '%.80s': use a number from %g to %g; 1 is the default", value, SPEED_MIN, SPEED_MAX);
		return 0;
	}
	if (!strcmp(key, "labels")) {
		if (!config_labels_valid(value))
			return err_set(e, -EINVAL, "labels '%.80s': use at most %d bytes of words such as gpu and zone=east, with one blank between them (letters, digits, '.', '_', '-')",
				       value, CONFIG_LABELS_MAX);
		snprintf(config->labels, sizeof(config->labels), "%s", value);
		return 0;
	}
	if (!strcmp(key, "cpu_without"))
		return cpu_hide(value, e);
	if (!strcmp(key, "busy"))
		return read_busy(config, value, e);
	if (!strcmp(key, "arch"))
		return read_arch(config, value, e);
	if (!strcmp(key, "emulator"))
		return read_path(key, value, config->emulator, sizeof(config->emulator), e);
	return err_set(e, -EINVAL, "unknown key '%.80s' in [node]; known are name, listen, port, peer_timeout_ms, speed, cpu_without, labels, busy, drain_at_stop, drain_timeout_ms, workstation, owner_idle_ms, arch, emulator", key);
}

/* "http://10.0.0.1:2379": what is behind it is added. */
static int add_server(struct membership_etcd *etcd, const char *value, struct err *e)
{
	size_t len = strlen(value);
	bool good = (!strncmp(value, "http://", 7) && len > 7) || (!strncmp(value, "https://", 8) && len > 8);

	for (const char *p = value; *p; p++)
		good = good && *p > ' ' && *p <= '~' && *p != '@' && *p != '?' && *p != '#';
	if (!good || len >= sizeof(etcd->servers[0]) || value[len - 1] == '/')
		return err_set(e, -EINVAL, "etcd '%.80s': use http://HOST:2379 or https://HOST:2379, a line for each server", value);
	if (etcd->n_servers >= MEMBERSHIP_SERVERS_MAX)
		return err_set(e, -EINVAL, "more than %d servers of etcd", MEMBERSHIP_SERVERS_MAX);
	strcpy(etcd->servers[etcd->n_servers++], value);
	return 0;
}

static int read_prefix(struct membership_etcd *etcd, const char *value, struct err *e)
{
	size_t len = strlen(value), n = strspn(value, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-/");

	if (len < 2 || n != len || len >= sizeof(etcd->prefix) || value[0] != '/' || value[len - 1] != '/')
		return err_set(e, -EINVAL, "etcd_prefix '%.80s': use a path such as /godwit/, of less than %zu bytes", value, sizeof(etcd->prefix));
	strcpy(etcd->prefix, value);
	return 0;
}

static int read_lease(struct membership_etcd *etcd, const char *value, struct err *e)
{
	char *end;
	unsigned long s = strtoul(value, &end, 10);

	if (value[0] < '0' || value[0] > '9' || *end || s < ETCD_LEASE_MIN_S || s > ETCD_LEASE_MAX_S)
		return err_set(e, -EINVAL, "etcd_lease_s '%.80s': use a number of seconds from %d to %d", value, ETCD_LEASE_MIN_S, ETCD_LEASE_MAX_S);
	etcd->lease_s = (unsigned)s;
	return 0;
}

static int read_etcd_key(struct config *config, const char *key, const char *value, struct err *e)
{
	struct membership_etcd *etcd = &config->etcd;

	if (!strcmp(key, "etcd"))
		return add_server(etcd, value, e);
	if (!strcmp(key, "etcd_prefix"))
		return read_prefix(etcd, value, e);
	if (!strcmp(key, "etcd_lease_s"))
		return read_lease(etcd, value, e);
	if (!strcmp(key, "etcd_ca"))
		return read_path(key, value, etcd->ca, sizeof(etcd->ca), e);
	if (!strcmp(key, "etcd_cert"))
		return read_path(key, value, etcd->cert, sizeof(etcd->cert), e);
	if (!strcmp(key, "etcd_key"))
		return read_path(key, value, etcd->key, sizeof(etcd->key), e);
	return err_set(e, -EINVAL, "unknown key '%.80s' in [cluster]; known are key_file, seed, etcd, etcd_prefix, etcd_lease_s, etcd_ca, etcd_cert, etcd_key", key);
}

static int read_cluster_key(struct config *config, const char *key, const char *value, struct err *e)
{
	if (!strcmp(key, "key_file"))
		return read_path(key, value, config->key_file, sizeof(config->key_file), e);
	if (!strcmp(key, "seed")) {
		if (config->n_seeds >= MEMBERS_SEEDS_MAX)
			return err_set(e, -EINVAL, "more than %d seeds", MEMBERS_SEEDS_MAX);
		if (conn_address_parse(value, &config->seeds[config->n_seeds], e) < 0)
			return e->code;
		config->n_seeds++;
		return 0;
	}
	return read_etcd_key(config, key, value, e);
}

static int read_access_key(struct config *config, const char *key, const char *value, struct err *e)
{
	bool users;

	if (!strcmp(key, "users")) {
		if (read_bool(key, value, &users, e) < 0)
			return e->code;
		config->root_only = !users;
		return 0;
	}
	if (!strcmp(key, "group")) {
		const struct group *group = getgrnam(value);

		if (!group)
			return err_set(e, -EINVAL, "group '%.80s': there is no such group", value);
		config->has_access_group = true;
		config->access_group = group->gr_gid;
		return 0;
	}
	if (!strcmp(key, "arriving_users"))
		return admission_parse_ids(value, &config->arriving.users, e) < 0 ? err_wrap(e, "%s", key) : 0;
	if (!strcmp(key, "arriving_groups"))
		return admission_parse_ids(value, &config->arriving.groups, e) < 0 ? err_wrap(e, "%s", key) : 0;
	if (!strcmp(key, "arriving_capabilities"))
		return admission_parse_capabilities(value, &config->arriving, e) < 0 ? err_wrap(e, "%s", key) : 0;
	return err_set(e, -EINVAL, "unknown key '%.80s' in [access]; known are users, group, arriving_users, arriving_groups, arriving_capabilities", key);
}

static int read_balance_key(struct config *config, const char *key, const char *value, struct err *e)
{
	if (!strcmp(key, "transfer"))
		return policy_transfer_parse(value, &config->transfer) ? 0 : err_set(e, -EINVAL, "transfer '%.80s': use sender, receiver or symmetric", value);
	if (!strcmp(key, "location"))
		return policy_location_parse(value, &config->location) ? 0 : err_set(e, -EINVAL, "location '%.80s': use opportunity, two-choices, best-fit or random", value);
	return err_set(e, -EINVAL, "unknown key '%.80s' in [balance]; known are transfer, location", key);
}

static int read_protect_key(struct config *config, const char *key, const char *value, struct err *e)
{
	char *end;
	unsigned long long mib;

	if (!strcmp(key, "keep"))
		return read_bool(key, value, &config->keeps, e);
	if (strcmp(key, "keep_mib") != 0)
		return err_set(e, -EINVAL, "unknown key '%.80s' in [protect]; known are keep, keep_mib", key);
	mib = strtoull(value, &end, 10);
	if (value[0] < '0' || value[0] > '9' || *end || mib < 1 || mib > PROTECT_MIB_MAX)
		return err_set(e, -EINVAL, "keep_mib '%.80s': use a number of MiB from 1 to %llu", value, PROTECT_MIB_MAX);
	config->protect_mib = mib;
	return 0;
}

static int read_api_key(struct config *config, const char *key, const char *value, struct err *e)
{
	if (!strcmp(key, "enabled"))
		return read_bool(key, value, &config->api, e);
	if (!strcmp(key, "tokens"))
		return read_path(key, value, config->api_tokens, sizeof(config->api_tokens), e);
	if (strcmp(key, "listen") != 0)
		return err_set(e, -EINVAL, "unknown key '%.80s' in [api]; known are enabled, listen, tokens", key);
	if (!strchr(value, ':'))
		return err_set(e, -EINVAL, "listen '%.80s' in [api]: use ADDRESS:PORT", value);
	return conn_address_parse(value, &config->api_listen, e);
}

static int read_tls_key(struct config *config, const char *key, const char *value, struct err *e)
{
	const struct {
		const char *key;
		char *path;
	} keys[] = { { "ca", config->tls.ca }, { "certificate", config->tls.certificate }, { "key", config->tls.key }, { "crl", config->tls.crl } };

	for (size_t i = 0; i < ARRAY_SIZE(keys); i++)
		if (!strcmp(key, keys[i].key))
			return read_path(key, value, keys[i].path, TLS_PATH_MAX, e);
	return err_set(e, -EINVAL, "unknown key '%.80s' in [tls]; known are ca, certificate, key, crl", key);
}

static int add_node(struct config *config, const char *name, const char *value, struct err *e)
{
	struct config_node node = { 0 }, *grown;
	int r;

	if (!hello_name_valid(name))
		return err_set(e, -EINVAL, "node name '%.80s': use 1 to %u letters, digits, '.', '_', '-'", name, HELLO_NAME_MAX);
	if (config_find(config, name))
		return err_set(e, -EINVAL, "node '%s' is there twice", name);
	if (config->n_nodes >= CONFIG_NODES_MAX)
		return err_set(e, -EINVAL, "more than %d nodes", CONFIG_NODES_MAX);
	r = conn_address_parse(value, &node.address, e);
	if (r < 0)
		return r;
	memcpy(node.name, name, strlen(name) + 1);
	grown = reallocarray(config->nodes, config->n_nodes + 1, sizeof(*grown));
	if (!grown)
		return err_sys(e, -ENOMEM, "nodes");
	config->nodes = grown;
	config->nodes[config->n_nodes++] = node;
	return 0;
}

/* Called by inih for each key; 0 means "this line is wrong". */
static int on_key(void *user, const char *section, const char *key, const char *value)
{
	struct reading *reading = user;
	struct err error = ERR_INIT;
	int r;

	if (!strcmp(section, "node"))
		r = read_node_key(reading->config, key, value, &error);
	else if (!strcmp(section, "nodes"))
		r = add_node(reading->config, key, value, &error);
	else if (!strcmp(section, "cluster"))
		r = read_cluster_key(reading->config, key, value, &error);
	else if (!strcmp(section, "balance"))
		r = read_balance_key(reading->config, key, value, &error);
	else if (!strcmp(section, "access"))
		r = read_access_key(reading->config, key, value, &error);
	else if (!strcmp(section, "protect"))
		r = read_protect_key(reading->config, key, value, &error);
	else if (!strcmp(section, "api"))
		r = read_api_key(reading->config, key, value, &error);
	else if (!strcmp(section, "tls"))
		r = read_tls_key(reading->config, key, value, &error);
	else
		r = err_set(&error, -EINVAL, "unknown section [%.80s]; known are [node], [nodes], [cluster], [balance], [access], [api], [protect] and [tls]", section);
	if (r < 0 && !reading->error.code)
		reading->error = error;
	return r == 0;
}

int config_parse_line(struct config *config, const char *text, int *ret_line, struct err *e)
{
	struct reading reading = { .config = config };
	int line = ini_parse_string(text, on_key, &reading);

	*ret_line = MAX(line, 0);
	if (line > 0)
		return err_set(e, -EINVAL, "%s", reading.error.code ? reading.error.message : "neither a [section] nor KEY = VALUE");
	return line < 0 ? err_set(e, -ENOMEM, "cannot be read") : 0;
}

int config_parse(struct config *config, const char *text, const char *path, struct err *e)
{
	struct err why = ERR_INIT;
	int line;

	if (config_parse_line(config, text, &line, &why) < 0)
		return line ? err_set(e, why.code, "%s:%d: %s", path, line, why.message) : err_set(e, why.code, "%s: %s", path, why.message);
	return 0;
}

int config_read_key(struct config *config, struct err *e)
{
	const char *path = config->key_file[0] ? config->key_file : CONFIG_DEFAULT_KEY_PATH;

	if (!config->key_file[0] && access(path, F_OK) < 0 && errno == ENOENT)
		return 0;
	if (secret_read(path, "the cluster's key", config->key, e) < 0)
		return e->code;
	config->has_key = true;
	return 0;
}

int config_read_text(const char *path, char **ret, struct err *e)
{
	cleanup_close int fd = open(path, O_RDONLY | O_CLOEXEC);
	cleanup_free char *text = NULL;
	size_t len = 0;
	ssize_t n;

	if (fd < 0)
		return err_sys(e, -errno, "%s", path);
	text = malloc(CONFIG_BYTES_MAX + 1);
	if (!text)
		return err_sys(e, -ENOMEM, "%s", path);
	while ((n = read(fd, text + len, CONFIG_BYTES_MAX + 1 - len)) > 0)
		len += (size_t)n;
	if (n < 0)
		return err_sys(e, -errno, "%s: read", path);
	if (len > CONFIG_BYTES_MAX)
		return err_set(e, -EFBIG, "%s: larger than %u bytes", path, CONFIG_BYTES_MAX);
	text[len] = 0;
	*ret = take_ptr(text);
	return 0;
}

static int read_file(struct config *config, const char *path, int required, struct err *e)
{
	cleanup_free char *text = NULL;
	struct err why = ERR_INIT;
	int r = config_read_text(path, &text, &why);

	if (r == -ENOENT && !required)
		return 0;
	return r < 0 ? err_set(e, r, "%s", why.message) : config_parse(config, text, path, e);
}

int config_check_tls(const struct config *config, time_t *ret_until, struct err *e)
{
	struct tls_identity id;

	*ret_until = 0;
	if (!config->tls.ca[0])
		return 0;
	if (tls_identity_load(&config->tls, config->name, &id, e) < 0)
		return e ? e->code : -EINVAL;
	*ret_until = id.until;
	tls_identity_free(&id);
	return 0;
}

int config_check_whole(const struct config *config, struct err *e)
{
	if (config->n_seeds && !config->has_key)
		return err_set(e, -EINVAL, "seed needs a key of the cluster: without one only the nodes that are listed in [nodes] are believed; set key_file in [cluster], or make " CONFIG_DEFAULT_KEY_PATH);
	if (!config->tls.ca[0] != !config->tls.certificate[0] || !config->tls.ca[0] != !config->tls.key[0] || !config->tls.ca[0] != !config->tls.crl[0])
		return err_set(e, -EINVAL, "[tls] needs ca, certificate, key and crl, all four: `godwit pki issue` makes them");
	if (config->api_listen.sin_port && (!config->api || !config->tls.ca[0]))
		return err_set(e, -EINVAL, "listen in [api] needs enabled = yes there, and [tls], whose certificate it shows");
	if (config->etcd.n_servers && config->listen.sin_addr.s_addr == htonl(INADDR_ANY) && !config_find(config, config->name))
		return err_set(e, -EINVAL, "etcd tells others where this node is: set listen in [node] to the address that they reach it under");
	return 0;
}

int config_load(struct config *config, const char *path, int required, struct err *e)
{
	int r = read_file(config, path, required, e);
	time_t until;

	if (r == 0)
		r = config_read_key(config, e);
	if (r == 0 && (config_check_whole(config, e) < 0 || config_check_tls(config, &until, e) < 0))
		r = err_wrap(e, "%s", path);
	return r;
}

void config_free(struct config *config)
{
	freep(&config->nodes);
	config->n_nodes = 0;
}

// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * cluster.c - godwit cluster: a cluster with TLS in three commands
 *
 *	init           a CA, this node's certificate, the cluster's key, and what godwit.conf has to say of them
 *	token          lets one host in, once, for some time (join.c)
 *	join           the same as init on another host, with what comes from the first one
 *	leave, show
 *
 * godwitd is not asked. What it reads anew only when it starts, its configuration, it is started anew for: by systemd where it runs, otherwise by who is told so.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <gnutls/crypto.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "base/util.h"
#include "cli/cli.h"
#include "cli/conf_edit.h"
#include "cli/join.h"
#include "daemon/config.h"
#include "wire/conn.h"
#include "wire/hello.h"

#define OWN_DIRECTORY "/etc/godwit"
#define TLS_DIRECTORY OWN_DIRECTORY "/tls"
#define KEY_BYTES 32
#define TOKEN_S 900
#define TOKEN_MAX_MS (24u * 3600u * 1000u)

struct options {
	const char *name, *address, *pki;
	unsigned ttl_ms, port, days;
	bool as_json;
};

/* --- files --- */

static int write_file(const char *path, const void *data, size_t len, mode_t mode, struct err *e)
{
	char fresh[256];
	cleanup_close int fd = -1;
	int r = 0;

	snprintf(fresh, sizeof(fresh), "%.240s.new", path);
	(void)unlink(fresh);
	fd = open(fresh, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, mode);
	if (fd < 0)
		return err_sys(e, -errno, "%s", path);
	if (write(fd, data, len) != (ssize_t)len || fchmod(fd, mode) < 0 || fsync(fd) < 0 || rename(fresh, path) < 0)
		r = errno ? -errno : -EIO;
	if (r < 0)
		(void)unlink(fresh);
	return r < 0 ? err_sys(e, r, "%s", path) : 0;
}

static int copy_file(const char *from, const char *to, mode_t mode, struct err *e)
{
	gnutls_datum_t data = { 0 };
	int r = gnutls_load_file(from, &data);

	if (r < 0)
		return err_set(e, -EIO, "%s: %s", from, gnutls_strerror(r));
	r = write_file(to, data.data, data.size, mode, e);
	explicit_bzero(data.data, data.size);
	gnutls_free(data.data);
	return r;
}

static int make_directories(struct err *e)
{
	if ((mkdir(OWN_DIRECTORY, 0755) < 0 && errno != EEXIST) || (mkdir(TLS_DIRECTORY, 0755) < 0 && errno != EEXIST))
		return err_sys(e, -errno, TLS_DIRECTORY);
	return 0;
}

/* --- the configuration --- */

static const char *const tls_keys[][2] = { { "ca", "ca.pem" }, { "certificate", "node.pem" }, { "key", "node.key" }, { "crl", "crl.pem" } };

static int read_config(char **ret, struct config *config, struct err *e)
{
	int r = config_read_text(CONFIG_DEFAULT_PATH, ret, e);

	config_init(config);
	if (r == -ENOENT) {
		*ret = strdup("# godwitd's configuration: godwit.conf(5). `godwit config check` says what is wrong with it.\n");
		return *ret ? 0 : err_sys(e, -ENOMEM, CONFIG_DEFAULT_PATH);
	}
	return r < 0 ? r : config_parse(config, *ret, CONFIG_DEFAULT_PATH, e);
}

/* It is written when it is right only, and what was there before is kept beside it. */
static int write_config(const char *text, struct err *e)
{
	struct config config;
	int r;

	config_init(&config);
	r = config_parse(&config, text, CONFIG_DEFAULT_PATH, e);
	if (r == 0)
		r = config_read_key(&config, e);
	if (r == 0)
		r = config_check_whole(&config, e);
	config_free(&config);
	if (r == 0 && access(CONFIG_DEFAULT_PATH, F_OK) == 0)
		r = copy_file(CONFIG_DEFAULT_PATH, CONFIG_DEFAULT_PATH ".old", 0644, e);
	return r == 0 ? write_file(CONFIG_DEFAULT_PATH, text, strlen(text), 0644, e) : r;
}

static int configure(char **text, const char *name, const char *address, const char *seed, struct err *e)
{
	char path[128];
	int r = conf_set(text, "node", "name", name, e);

	if (r == 0)
		r = conf_set(text, "node", "listen", address, e);
	if (r == 0 && seed)
		r = conf_set(text, "cluster", "seed", seed, e);
	for (size_t i = 0; i < ARRAY_SIZE(tls_keys) && r == 0; i++) {
		snprintf(path, sizeof(path), TLS_DIRECTORY "/%s", tls_keys[i][1]);
		r = conf_set(text, "tls", tls_keys[i][0], path, e);
	}
	return r == 0 ? write_config(*text, e) : r;
}

/* --- who this is --- */

/* The one that other hosts see, as far as this one can tell: of the device with the default route, or the only one that there is. */
static int find_address(char ret[46], struct err *e)
{
	struct sockaddr_in far = { .sin_family = AF_INET, .sin_port = htons(9), .sin_addr.s_addr = htonl(0xc0000201) }, own = { 0 }; /* 192.0.2.1, which is nobody's */
	cleanup_close int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	struct ifaddrs *all = NULL, *i;
	size_t n = 0;

	if (fd >= 0 && connect(fd, (struct sockaddr *)&far, sizeof(far)) == 0 && getsockname(fd, (struct sockaddr *)&own, &(socklen_t){ sizeof(own) }) == 0) {
		inet_ntop(AF_INET, &own.sin_addr, ret, 46);
		return 0;
	}
	if (getifaddrs(&all) == 0)
		for (i = all; i; i = i->ifa_next)
			if (i->ifa_addr && i->ifa_addr->sa_family == AF_INET && !(i->ifa_flags & IFF_LOOPBACK)) {
				inet_ntop(AF_INET, &((struct sockaddr_in *)i->ifa_addr)->sin_addr, ret, 46);
				n++;
			}
	freeifaddrs(all);
	return n == 1 ? 0 : err_set(e, -EADDRNOTAVAIL, "which address do other nodes reach this host under? Say it: --address A");
}

/* Whether this host belongs to a cluster already, which nothing here is to take apart. */
static int check_free(const struct config *config, struct err *e)
{
	if (config->tls.ca[0])
		return err_set(e, -EEXIST, "this node has [tls] in " CONFIG_DEFAULT_PATH " already: `godwit cluster show` says what it is, `godwit cluster leave` ends it");
	if (access(CONFIG_DEFAULT_KEY_PATH, F_OK) == 0)
		return err_set(e, -EEXIST, CONFIG_DEFAULT_KEY_PATH " is there already: this node belongs to a cluster; `godwit cluster leave` ends it");
	return 0;
}

static int name_self(const struct options *o, const struct config *config, char name[HELLO_NAME_MAX + 1], struct err *e)
{
	snprintf(name, HELLO_NAME_MAX + 1, "%s", o->name ? o->name : config->name);
	if (!hello_name_valid(name) || (o->name && strlen(o->name) > HELLO_NAME_MAX) || name[0] == '.')
		return err_set(e, -EINVAL, "'%s' is no name of a node: 1 to %u letters, digits, '.', '_', '-'", name, HELLO_NAME_MAX);
	return 0;
}

static bool runs_systemd(void)
{
	return access("/run/systemd/system", F_OK) == 0;
}

/* godwitd reads its configuration when it starts. */
static const char *start_anew(void)
{
	int status = -1;
	pid_t pid;

	if (!runs_systemd())
		return "Start godwitd anew, so that it reads its configuration.";
	pid = fork();
	if (pid == 0) {
		execlp("systemctl", "systemctl", "--quiet", "try-restart", "godwitd.service", (char *)NULL);
		_exit(127);
	}
	if (pid > 0)
		waitpid(pid, &status, 0);
	return pid > 0 && WIFEXITED(status) && WEXITSTATUS(status) == 0 ? "godwitd has been started anew, where it ran." : "Start godwitd anew (systemctl restart godwitd), so that it reads its configuration.";
}

/* --- init --- */

static int make_key(struct err *e)
{
	uint8_t random[KEY_BYTES];
	char text[2 * KEY_BYTES + 2];
	int r;

	if (gnutls_rnd(GNUTLS_RND_KEY, random, sizeof(random)) < 0)
		return err_set(e, -EIO, "no random numbers");
	for (size_t i = 0; i < KEY_BYTES; i++)
		snprintf(text + 2 * i, 3, "%02x", random[i]);
	text[2 * KEY_BYTES] = '\n';
	r = write_file(CONFIG_DEFAULT_KEY_PATH, text, 2 * KEY_BYTES + 1, 0600, e);
	explicit_bzero(random, sizeof(random));
	explicit_bzero(text, sizeof(text));
	return r;
}

static int install_own(const char *files, struct err *e)
{
	char from[512], to[128];
	int r = make_directories(e);

	for (size_t i = 0; i < ARRAY_SIZE(tls_keys) && r == 0; i++) {
		snprintf(from, sizeof(from), "%.400s/%s", files, tls_keys[i][1]);
		snprintf(to, sizeof(to), TLS_DIRECTORY "/%s", tls_keys[i][1]);
		r = copy_file(from, to, !strcmp(tls_keys[i][0], "key") ? 0600 : 0644, e);
	}
	return r;
}

static int make_cluster(const struct options *o, const struct config *config, char **text, struct err *e)
{
	char name[HELLO_NAME_MAX + 1], address[46];
	const char *addresses[] = { address };
	cleanup_free char *files = NULL;
	int r = check_free(config, e);

	if (r == 0)
		r = name_self(o, config, name, e);
	if (r == 0 && o->address)
		snprintf(address, sizeof(address), "%s", o->address);
	else if (r == 0)
		r = find_address(address, e);
	if (r == 0)
		r = pki_init(o->pki, e);
	if (r == 0)
		r = pki_issue(o->pki, name, addresses, 1, o->days, &files, e);
	if (r == 0)
		r = install_own(files, e);
	if (r == 0)
		r = make_key(e);
	if (r == 0)
		r = configure(text, name, address, NULL, e);
	if (r == 0)
		printf("Node %s at %s is the first of a cluster. Its CA is in %s: keep it secret, and have a copy of it.\n%s\n"
		       "For each other host: `godwit cluster token` here, then `godwit cluster join %s TOKEN` there.\n", name, address, o->pki, start_anew(), address);
	return r;
}

static int do_init(const struct options *o, char **arguments, struct err *e)
{
	cleanup_free char *text = NULL;
	struct config config;
	int r = read_config(&text, &config, e);

	(void)arguments;
	if (r == 0)
		r = make_cluster(o, &config, &text, e);
	config_free(&config);
	return r;
}

/* --- token --- */

static int make_token(const struct options *o, const struct config *config, struct err *e)
{
	char seed[CONN_ADDRESS_TEXT], text[JOIN_TOKEN_TEXT], address[46];
	struct join_offer offer = { .pki = o->pki, .days = o->days, .key_file = config->key_file[0] ? config->key_file : CONFIG_DEFAULT_KEY_PATH, .seed = seed,
				    .seconds = o->ttl_ms / 1000, .port = (uint16_t)o->port };
	struct join_token token;
	int r;

	if (!config->tls.ca[0] || config->listen.sin_addr.s_addr == htonl(INADDR_ANY))
		return err_set(e, -ENOENT, "a token is made on the node of the cluster that has the CA: `godwit cluster init` makes a cluster");
	conn_address_text(&config->listen, seed);
	inet_ntop(AF_INET, &config->listen.sin_addr, address, sizeof(address));
	r = join_serve(&offer, &token, e);
	if (r < 0)
		return r;
	join_token_text(&token, text);
	if (o->as_json) {
		json_t *j = json_pack("{s:s, s:s, s:i, s:i}", "token", text, "host", address, "port", (int)token.port, "seconds", (int)offer.seconds);

		show_json(j);
		json_decref(j);
	} else {
		/* The command on a line of its own, so that it can be copied. */
		fprintf(stderr, "On the host that is to join, as root, within %u minutes; it lets one host in, once. Whoever has it can become a node: show it to nobody.\n", (offer.seconds + 59) / 60);
		printf("godwit cluster join %s %s\n", address, text);
	}
	explicit_bzero(text, sizeof(text));
	explicit_bzero(&token, sizeof(token));
	return 0;
}

static int do_token(const struct options *o, char **arguments, struct err *e)
{
	cleanup_free char *text = NULL;
	struct config config;
	int r = read_config(&text, &config, e);

	(void)arguments;
	if (r == 0)
		r = make_token(o, &config, e);
	config_free(&config);
	return r;
}

/* --- join --- */

static int install(const struct join_answer *a, const gnutls_datum_t *key, struct err *e)
{
	int r = make_directories(e);

	if (r == 0)
		r = write_file(TLS_DIRECTORY "/ca.pem", a->part[JOIN_CA].data, a->part[JOIN_CA].size, 0644, e);
	if (r == 0)
		r = write_file(TLS_DIRECTORY "/crl.pem", a->part[JOIN_CRL].data, a->part[JOIN_CRL].size, 0644, e);
	if (r == 0)
		r = write_file(TLS_DIRECTORY "/node.key", key->data, key->size, 0600, e);
	if (r == 0)
		r = write_file(TLS_DIRECTORY "/node.pem", a->part[JOIN_CERTIFICATE].data, a->part[JOIN_CERTIFICATE].size, 0644, e);
	return r == 0 ? write_file(CONFIG_DEFAULT_KEY_PATH, a->part[JOIN_KEY].data, a->part[JOIN_KEY].size, 0600, e) : r;
}

static int join(const struct options *o, const struct config *config, char **text, char **arguments, struct err *e)
{
	struct join_request request = { 0 };
	struct join_answer answer = { 0 };
	gnutls_datum_t key = { 0 };
	struct sockaddr_in seed;
	struct join_token token;
	int r = check_free(config, e);

	if (r == 0)
		r = join_token_parse(arguments[1], &token, e);
	if (r == 0)
		r = name_self(o, config, request.node, e);
	if (r == 0 && o->address)
		snprintf(request.address, sizeof(request.address), "%s", o->address);
	else if (r == 0)
		r = join_own_address(arguments[0], request.address, e);
	if (r == 0)
		r = pki_make_request(request.node, &request, &key, e);
	if (r == 0)
		r = join_ask(arguments[0], &token, &request, &answer, e);
	if (r == 0)
		r = conn_address_parse((const char *)answer.part[JOIN_SEED].data, &seed, e);
	if (r == 0)
		r = install(&answer, &key, e);
	if (r == 0)
		r = configure(text, request.node, request.address, (const char *)answer.part[JOIN_SEED].data, e);
	if (r == 0)
		printf("This host is the node %s at %s.\n%s\n`godwit nodes` shows the others.\n", request.node, request.address, start_anew());
	join_answer_free(&answer);
	if (key.data)
		explicit_bzero(key.data, key.size);
	gnutls_free(key.data);
	explicit_bzero(&token, sizeof(token));
	return r;
}

static int do_join(const struct options *o, char **arguments, struct err *e)
{
	cleanup_free char *text = NULL;
	struct config config;
	int r = read_config(&text, &config, e);

	if (r == 0)
		r = join(o, &config, &text, arguments, e);
	config_free(&config);
	return r;
}

/* --- leave, show --- */

/* What init and join have written. The CA stays: who has it is the cluster's. */
static int do_leave(const struct options *o, char **arguments, struct err *e)
{
	cleanup_free char *text = NULL;
	struct config config;
	char path[128], ca[256];
	int r = read_config(&text, &config, e);

	(void)arguments;
	snprintf(ca, sizeof(ca), "%.200s/ca.pem", o->pki);
	if (r == 0 && !config.tls.ca[0])
		r = err_set(e, -ENOENT, "this host belongs to no cluster with [tls]");
	for (size_t i = 0; i < ARRAY_SIZE(tls_keys) && r == 0; i++)
		r = conf_set(&text, "tls", tls_keys[i][0], NULL, e);
	if (r == 0)
		r = conf_set(&text, "cluster", "seed", NULL, e);
	if (r == 0)
		r = conf_set(&text, "node", "listen", "127.0.0.1", e);
	if (r == 0 && unlink(CONFIG_DEFAULT_KEY_PATH) < 0 && errno != ENOENT)
		r = err_sys(e, -errno, CONFIG_DEFAULT_KEY_PATH);
	if (r == 0)
		r = write_config(text, e);
	for (size_t i = 0; i < ARRAY_SIZE(tls_keys) && r == 0; i++) {
		snprintf(path, sizeof(path), TLS_DIRECTORY "/%s", tls_keys[i][1]);
		(void)unlink(path);
	}
	if (r == 0)
		printf("This host belongs to no cluster any more, and listens to itself only. %s\n", start_anew());
	if (r == 0 && access(ca, F_OK) == 0)
		printf("The CA is still in %s.\n", o->pki);
	else if (r == 0)
		printf("Where the CA is: `godwit pki revoke %s`, and copy crl.pem to the other nodes.\n", config.name);
	config_free(&config);
	return r;
}

static json_t *describe(const struct options *o, const struct config *config)
{
	char address[CONN_ADDRESS_TEXT], ca[256];
	struct pki_item *items = NULL;
	size_t n = 0;
	json_t *j;

	conn_address_text(&config->listen, address);
	snprintf(ca, sizeof(ca), "%.200s/ca.pem", o->pki);
	j = json_pack("{s:s, s:s, s:b, s:b}", "node", config->name, "address", address, "tls", config->tls.ca[0] != 0, "has_ca", access(ca, F_OK) == 0);
	if (config->tls.ca[0] && pki_read(config->tls.ca, &items, &n, NULL) == 0)
		json_object_set_new(j, "ca_sha256", json_string(items[0].sha256));
	free(items);
	items = NULL;
	if (config->tls.ca[0] && pki_read(config->tls.certificate, &items, &n, NULL) == 0)
		json_object_set_new(j, "until", json_integer((json_int_t)items[0].until));
	free(items);
	return j;
}

static void show(const json_t *j)
{
	char date[24] = "";
	time_t until = (time_t)number_of(j, "until");
	struct tm tm;

	printf("Node ");
	put_text(stdout, text_of(j, "node"));
	printf(" at %s%s\n", text_of(j, "address"), json_is_true(json_object_get(j, "tls")) ? "" : ", in no cluster with TLS: `godwit cluster init` makes one");
	if (*text_of(j, "ca_sha256"))
		printf("CA %s%s\n", text_of(j, "ca_sha256"), json_is_true(json_object_get(j, "has_ca")) ? ", whose key is here" : "");
	if (until && gmtime_r(&until, &tm) && strftime(date, sizeof(date), "%Y-%m-%d %H:%M UTC", &tm))
		printf("Its certificate is valid until %s\n", date);
}

static int do_show(const struct options *o, char **arguments, struct err *e)
{
	cleanup_free char *text = NULL;
	struct config config;
	int r = read_config(&text, &config, e);
	json_t *j;

	(void)arguments;
	if (r == 0) {
		j = describe(o, &config);
		if (o->as_json)
			show_json(j);
		else
			show(j);
		json_decref(j);
	}
	config_free(&config);
	return r;
}

/* --- the verb --- */

static const struct action {
	const char *name;
	int n_arguments;
	int (*run)(const struct options *o, char **arguments, struct err *e);
} actions[] = { { "init", 0, do_init }, { "token", 0, do_token }, { "join", 2, do_join }, { "leave", 0, do_leave }, { "show", 0, do_show } };

static int read_numbers(struct options *o, int option, const char *text, struct err *e)
{
	char *end;
	unsigned long n;

	if (option == 't')
		return duration_parse(text, &o->ttl_ms, e) < 0 ? e->code : o->ttl_ms < 1000 || o->ttl_ms > TOKEN_MAX_MS ? err_set(e, -EINVAL, "from 1s to 24h") : 0;
	n = strtoul(text, &end, 10);
	if (!*text || *end || !n || n > (option == 'p' ? 65535 : PKI_DAYS_MAX))
		return err_set(e, -EINVAL, "'%s' is no number from 1 to %u", text, option == 'p' ? 65535 : PKI_DAYS_MAX);
	*(option == 'p' ? &o->port : &o->days) = (unsigned)n;
	return 0;
}

static int read_options(int argc, char **argv, struct options *ret)
{
	static const struct option options[] = { { "name", required_argument, NULL, 'n' }, { "address", required_argument, NULL, 'a' }, { "ttl", required_argument, NULL, 't' },
						 { "port", required_argument, NULL, 'p' }, { "days", required_argument, NULL, 'd' }, { "dir", required_argument, NULL, 'D' },
						 { "json", no_argument, NULL, 'j' }, { 0 } };
	struct in_addr address;
	struct err e = ERR_INIT;
	int o;

	optind = 1;
	while ((o = getopt_long(argc, argv, ":", options, NULL)) != -1) {
		if (o == 'n')
			ret->name = optarg;
		else if (o == 'a')
			ret->address = optarg;
		else if (o == 'D')
			ret->pki = optarg;
		else if (o == 'j')
			ret->as_json = true;
		else if (o != 't' && o != 'p' && o != 'd')
			return option_error("cluster", o, argv);
		else if (read_numbers(ret, o, optarg, &e) < 0)
			return usage_error("cluster", "%s", e.message);
	}
	if (ret->address && inet_pton(AF_INET, ret->address, &address) != 1)
		return usage_error("cluster", "'%s' is no IPv4 address", ret->address);
	return EXIT_OK;
}

int verb_cluster(int argc, char **argv)
{
	struct options o = { .pki = PKI_DEFAULT_DIRECTORY, .ttl_ms = TOKEN_S * 1000, .port = JOIN_PORT, .days = PKI_NODE_DAYS };
	struct err e = ERR_INIT;
	int status = read_options(argc, argv, &o);

	if (status)
		return status;
	for (size_t i = 0; i < ARRAY_SIZE(actions); i++) {
		if (optind >= argc || strcmp(argv[optind], actions[i].name) != 0)
			continue;
		if (argc - optind - 1 != actions[i].n_arguments)
			return usage_error("cluster", "%s takes %d argument%s", actions[i].name, actions[i].n_arguments, actions[i].n_arguments == 1 ? "" : "s");
		if (geteuid() != 0 && actions[i].run != do_show) {
			complain("cluster %s is for root: run it with sudo", actions[i].name);
			return EXIT_FAILED;
		}
		if (actions[i].run(&o, argv + optind + 1, &e) == 0)
			return EXIT_OK;
		complain("%s", e.message);
		return EXIT_FAILED;
	}
	return usage_error("cluster", "init, token, join, leave or show is expected");
}

// SPDX-License-Identifier: GPL-2.0-or-later
/* config.c - godwit config check: what is wrong with a configuration, all of it, before godwitd reads it. godwitd is not asked */
#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <ifaddrs.h>
#include <string.h>

#include "base/util.h"
#include "cli/cli.h"
#include "daemon/config.h"
#include "wire/conn.h"

#define ERRORS_MAX 100

struct checking {
	const char *path;
	json_t *errors, *warnings;
};

static void note(json_t *list, int line, const char *message)
{
	json_t *o = json_pack("{s:s}", "message", message);

	if (o && line)
		json_object_set_new(o, "line", json_integer(line));
	json_array_append_new(list, o);
}

/* Makes a comment of a line, so that the ones behind it can be looked at. */
static void blank(char *text, int line)
{
	for (; *text && line > 1; text++)
		line -= *text == '\n';
	for (; *text && *text != '\n'; text++)
		*text = ';';
}

/* Every line that is wrong; the rest is in *ret. */
static void check_lines(struct checking *c, char *text, struct config *ret)
{
	for (int i = 0; i < ERRORS_MAX; i++) {
		struct err e = ERR_INIT;
		int line;

		config_init(ret);
		if (config_parse_line(ret, text, &line, &e) == 0)
			return;
		note(c->errors, line, e.message);
		if (!line)
			return;
		blank(text, line);
		if (i + 1 < ERRORS_MAX)
			config_free(ret);
	}
}

static bool is_of_this_host(const struct sockaddr_in *address)
{
	struct ifaddrs *all = NULL, *i;
	bool found = address->sin_addr.s_addr == htonl(INADDR_ANY);

	if (found || getifaddrs(&all) < 0)
		return true;
	for (i = all; i && !found; i = i->ifa_next)
		found = i->ifa_addr && i->ifa_addr->sa_family == AF_INET && ((struct sockaddr_in *)i->ifa_addr)->sin_addr.s_addr == address->sin_addr.s_addr;
	freeifaddrs(all);
	return found;
}

/* What is no error for godwitd, or only on another host. */
static void check_sense(struct checking *c, const struct config *config)
{
	const struct config_node *self = config_find(config, config->name);
	char text[300], address[CONN_ADDRESS_TEXT];

	conn_address_text(&config->listen, address);
	if (!is_of_this_host(&config->listen)) {
		snprintf(text, sizeof(text), "listen: no interface of this host has %s", address);
		note(c->warnings, 0, text);
	}
	if (self && self->address.sin_port != config->listen.sin_port) {
		snprintf(text, sizeof(text), "[nodes] has another port for %s than the one it listens on, %u: others would not find it", config->name, ntohs(config->listen.sin_port));
		note(c->warnings, 0, text);
	}
	if (self && config->listen.sin_addr.s_addr != htonl(INADDR_ANY) && self->address.sin_addr.s_addr != config->listen.sin_addr.s_addr) {
		snprintf(text, sizeof(text), "[nodes] has another address for %s than the one it listens on, %s: others would not find it", config->name, address);
		note(c->warnings, 0, text);
	}
	if (!config->has_key && config->n_nodes > (size_t)(self != NULL))
		note(c->warnings, 0, "the cluster has no key: who can send with the addresses of its nodes is believed what they say of themselves; see key_file in godwit.conf(5)");
}

#define SOON_S (30 * 86400)

static void check_tls(struct checking *c, const struct config *config)
{
	struct err e = ERR_INIT;
	char text[200], date[24];
	time_t until;
	struct tm tm;

	if (config_check_tls(config, &until, &e) < 0)
		note(c->errors, 0, e.message);
	else if (until && until < time(NULL) + SOON_S && gmtime_r(&until, &tm) && strftime(date, sizeof(date), "%Y-%m-%d %H:%M", &tm)) {
		snprintf(text, sizeof(text), "the certificate of this node is valid until %s UTC only: `godwit pki issue %.64s` makes a new one", date, config->name);
		note(c->warnings, 0, text);
	}
}

static void check(struct checking *c, bool required, struct config *ret)
{
	cleanup_free char *text = NULL;
	struct err e = ERR_INIT;
	int r = config_read_text(c->path, &text, &e);

	config_init(ret);
	if (r < 0 && (required || r != -ENOENT))
		note(c->errors, 0, e.message);
	else if (r < 0)
		note(c->warnings, 0, "there is no such file: everything has its default");
	if (text)
		check_lines(c, text, ret);
	if (config_read_key(ret, &e) < 0 || config_check_whole(ret, &e) < 0)
		note(c->errors, 0, e.message);
	else
		check_tls(c, ret);
	check_sense(c, ret);
}

static void print_notes(const struct checking *c, const json_t *list, FILE *f, const char *kind)
{
	const json_t *o;
	size_t i;

	json_array_foreach(list, i, o) {
		put_text(f, c->path);
		if (number_of(o, "line"))
			fprintf(f, ":%lld", number_of(o, "line"));
		fprintf(f, ": %s", kind);
		put_text(f, text_of(o, "message"));
		fputc('\n', f);
	}
}

static void show(const struct checking *c, const struct config *config)
{
	char address[CONN_ADDRESS_TEXT];

	print_notes(c, c->errors, stderr, "");
	print_notes(c, c->warnings, stderr, "warning: ");
	if (json_array_size(c->errors))
		return;
	conn_address_text(&config->listen, address);
	printf("%s is right: node %s at %s, %zu node%s listed, %zu seed%s, %s, %s\n", c->path, config->name, address, config->n_nodes, config->n_nodes == 1 ? "" : "s", config->n_seeds,
	       config->n_seeds == 1 ? "" : "s", config->has_key ? "with a key" : "without a key", config->tls.ca[0] ? "with TLS" : "without TLS");
}

int verb_config(int argc, char **argv)
{
	static const struct option options[] = { { "json", no_argument, NULL, 'j' }, { 0 } };
	struct checking c = { .path = CONFIG_DEFAULT_PATH };
	struct config config;
	bool as_json = false, good;
	int o;

	optind = 1;
	while ((o = getopt_long(argc, argv, ":", options, NULL)) != -1) {
		if (o != 'j')
			return option_error("config", o, argv);
		as_json = true;
	}
	if (optind >= argc || strcmp(argv[optind], "check") != 0 || argc > optind + 2)
		return usage_error("config", "check is expected, and perhaps a file");
	if (argc == optind + 2)
		c.path = argv[optind + 1];
	c.errors = json_array();
	c.warnings = json_array();
	check(&c, argc == optind + 2, &config);
	good = !json_array_size(c.errors);
	if (as_json) {
		json_t *all = json_pack("{s:s, s:b, s:O, s:O}", "file", c.path, "ok", good, "errors", c.errors, "warnings", c.warnings);

		show_json(all);
		json_decref(all);
	} else {
		show(&c, &config);
	}
	config_free(&config);
	json_decref(c.errors);
	json_decref(c.warnings);
	return good ? EXIT_OK : EXIT_FAILED;
}

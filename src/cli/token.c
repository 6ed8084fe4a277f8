// SPDX-License-Identifier: GPL-2.0-or-later
/* token.c - godwit token: who may use the API over TLS. godwitd is not asked */
#include <errno.h>
#include <getopt.h>
#include <pwd.h>
#include <string.h>

#include "base/util.h"
#include "cli/cli.h"
#include "pki/tokens.h"

struct order {
	const char *file, *user;
	bool as_json;
};

static int add(const char *name, const struct order *o, struct err *e)
{
	char token[TOKEN_TEXT];

	if (!getpwnam(o->user))
		return err_set(e, -ENOENT, "there is no user '%s' on this host", o->user);
	if (tokens_add(o->file, name, o->user, token, e) < 0)
		return e->code;
	if (o->as_json)
		printf("{\"name\":\"%s\",\"user\":\"%s\",\"token\":\"%s\"}\n", name, o->user, token);
	else
		printf("%s\n", token);
	explicit_bzero(token, sizeof(token));
	return 0;
}

static int list(const struct order *o, struct err *e)
{
	cleanup_free struct token *tokens = NULL;
	json_t *all = json_array();
	size_t n = 0;
	int r = tokens_read(o->file, &tokens, &n, e);

	for (size_t i = 0; r == 0 && i < n; i++) {
		if (o->as_json)
			json_array_append_new(all, json_pack("{s:s, s:s}", "name", tokens[i].name, "user", tokens[i].user));
		else
			printf("%s %s\n", tokens[i].name, tokens[i].user);
	}
	if (r == 0 && o->as_json)
		show_json(all);
	json_decref(all);
	return r;
}

static int obey(const char *action, const char *name, const struct order *o, struct err *e)
{
	if (!strcmp(action, "list") && !name)
		return list(o, e);
	if (!strcmp(action, "add") && name)
		return add(name, o, e);
	if (!strcmp(action, "remove") && name)
		return tokens_remove(o->file, name, e);
	return -ENOSYS;
}

int verb_token(int argc, char **argv)
{
	static const struct option options[] = { { "user", required_argument, NULL, 'u' }, { "file", required_argument, NULL, 'f' }, { "json", no_argument, NULL, 'j' }, { 0 } };
	struct order order = { TOKENS_DEFAULT_PATH, "root", false };
	struct err e = ERR_INIT;
	int o, r;

	optind = 1;
	while ((o = getopt_long(argc, argv, ":", options, NULL)) != -1) {
		if (o == 'u')
			order.user = optarg;
		else if (o == 'f')
			order.file = optarg;
		else if (o == 'j')
			order.as_json = true;
		else
			return option_error("token", o, argv);
	}
	r = optind < argc && argc - optind <= 2 ? obey(argv[optind], argv[optind + 1], &order, &e) : -ENOSYS;
	if (r == -ENOSYS)
		return usage_error("token", "add NAME, remove NAME, or list is expected");
	if (r < 0)
		complain("%s", e.message);
	return r < 0 ? EXIT_FAILED : EXIT_OK;
}

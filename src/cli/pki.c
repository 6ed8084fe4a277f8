// SPDX-License-Identifier: GPL-2.0-or-later
/* pki.c - godwit pki: the certificates of the nodes. godwitd is not asked */
#include <getopt.h>
#include <string.h>
#include <time.h>

#include "base/util.h"
#include "cli/cli.h"
#include "pki/pki.h"

struct order {
	const char *directory;
	const char *addresses[PKI_ADDRESSES_MAX];
	size_t n;
	unsigned days;
	bool as_json;
};

static int do_init(const char *argument, const struct order *o, struct err *e)
{
	const char *directory = argument ? argument : o->directory;

	if (pki_init(directory, e) < 0)
		return e->code;
	printf("%s has a CA. Keep it secret: who can read it can make nodes. For each node: godwit pki issue%s%s NODE\n", directory,
	       strcmp(directory, PKI_DEFAULT_DIRECTORY) != 0 ? " --dir " : "", strcmp(directory, PKI_DEFAULT_DIRECTORY) != 0 ? directory : "");
	return 0;
}

static int do_issue(const char *argument, const struct order *o, struct err *e)
{
	cleanup_free char *files = NULL;

	if (pki_issue(o->directory, argument, o->addresses, o->n, o->days, &files, e) < 0)
		return e->code;
	printf("%s has node.pem, node.key, ca.pem and crl.pem. Copy them to %s, by a way that keeps the key secret (scp -r), for [tls] in its godwit.conf\n", files, argument);
	return 0;
}

static int do_rotate(const char *argument, const struct order *o, struct err *e)
{
	if (pki_rotate(o->directory, e) < 0)
		return e->code;
	printf("%s has a new CA beside the old one, and both are trusted. Now for each node, one after the other: godwit pki issue NODE, and copy its files. When all have been changed: "
	       "godwit pki retire\n", o->directory);
	return 0;
}

static int do_retire(const char *argument, const struct order *o, struct err *e)
{
	if (pki_retire(o->directory, e) < 0)
		return e->code;
	printf("The old CA is trusted no longer, by nodes that get ca.pem and crl.pem from %s\n", o->directory);
	return 0;
}

static int do_revoke(const char *argument, const struct order *o, struct err *e)
{
	size_t n;

	if (pki_revoke(o->directory, argument, &n, e) < 0)
		return e->code;
	printf("%zu certificate%s of %s %s revoked, for nodes that get %s/crl.pem; they need not be restarted\n", n, n == 1 ? "" : "s", argument, n == 1 ? "is" : "are", o->directory);
	return 0;
}

static const char *kind_name(enum pki_kind kind)
{
	static const char *const names[] = { [PKI_CERTIFICATE] = "certificate", [PKI_AUTHORITY] = "authority", [PKI_REVOCATIONS] = "revocations", [PKI_KEY] = "key" };

	return names[kind];
}

static void date_text(time_t t, char text[24])
{
	struct tm tm;

	if (!gmtime_r(&t, &tm) || !strftime(text, 24, "%Y-%m-%d %H:%M UTC", &tm))
		strcpy(text, "?");
}

static void line(const char *what, const char *text)
{
	printf("  %-8s", what);
	put_text(stdout, *text ? text : "-");
	putchar('\n');
}

static void show_item(const struct pki_item *item)
{
	char from[24], until[24];

	if (item->kind == PKI_KEY) {
		printf("A private key: ");
		put_text(stdout, item->subject);
		putchar('\n');
		return;
	}
	printf("%s ", item->kind == PKI_AUTHORITY ? "CA" : item->kind == PKI_REVOCATIONS ? "Revocations by" : "Certificate of");
	put_text(stdout, item->kind == PKI_REVOCATIONS ? item->issuer : item->subject);
	putchar('\n');
	date_text(item->from, from);
	date_text(item->until, until);
	printf("  valid   %s to %s%s\n", from, until, item->until < time(NULL) ? ": it has EXPIRED" : item->from > time(NULL) ? ": NOT YET" : "");
	if (item->kind == PKI_REVOCATIONS) {
		line("revoked", item->names);
		return;
	}
	if (item->kind == PKI_CERTIFICATE)
		line("names", item->names);
	line("by", item->issuer);
	line("serial", item->serial);
	line("sha256", item->sha256);
}

static json_t *item_json(const struct pki_item *item)
{
	json_t *o = json_pack("{s:s, s:s, s:s, s:s, s:s, s:s}", "kind", kind_name(item->kind), "subject", item->subject, "issuer", item->issuer,
			      item->kind == PKI_REVOCATIONS ? "revoked" : "names", item->names, "serial", item->serial, "sha256", item->sha256);

	if (o && item->kind != PKI_KEY) {
		json_object_set_new(o, "from", json_integer(item->from));
		json_object_set_new(o, "until", json_integer(item->until));
	}
	return o;
}

static int do_show(const char *argument, const struct order *o, struct err *e)
{
	cleanup_free struct pki_item *items = NULL;
	json_t *all = NULL;
	size_t n;

	if (pki_read(argument, &items, &n, e) < 0)
		return e->code;
	if (o->as_json)
		all = json_array();
	for (size_t i = 0; i < n; i++) {
		if (all)
			json_array_append_new(all, item_json(&items[i]));
		else
			show_item(&items[i]);
	}
	if (all)
		show_json(all);
	json_decref(all);
	return 0;
}

static const struct {
	const char *name, *argument; /* "": there is none; in brackets: it may be left out */
	int (*run)(const char *argument, const struct order *o, struct err *e);
} actions[] = {
	{ "init", "[DIR]", do_init }, { "issue", "NODE", do_issue }, { "rotate", "", do_rotate }, { "retire", "", do_retire }, { "revoke", "NODE", do_revoke }, { "show", "FILE", do_show },
};

static int read_options(int argc, char **argv, struct order *ret)
{
	static const struct option options[] = {
		{ "address", required_argument, NULL, 'a' }, { "days", required_argument, NULL, 'n' }, { "dir", required_argument, NULL, 'd' }, { "json", no_argument, NULL, 'j' }, { 0 },
	};
	int o;

	optind = 1;
	while ((o = getopt_long(argc, argv, ":", options, NULL)) != -1) {
		if (o == 'a' && ret->n == PKI_ADDRESSES_MAX)
			return usage_error("pki", "--address: at most %u", PKI_ADDRESSES_MAX);
		if (o == 'a')
			ret->addresses[ret->n++] = optarg;
		else if (o == 'd')
			ret->directory = optarg;
		else if (o == 'j')
			ret->as_json = true;
		else if (o != 'n')
			return option_error("pki", o, argv);
		else if (sscanf(optarg, "%5u", &ret->days) != 1 || strspn(optarg, "0123456789") != strlen(optarg) || !ret->days || ret->days > PKI_DAYS_MAX)
			return usage_error("pki", "--days: use a number from 1 to %u", PKI_DAYS_MAX);
	}
	return EXIT_OK;
}

int verb_pki(int argc, char **argv)
{
	struct order o = { .directory = PKI_DEFAULT_DIRECTORY, .days = PKI_NODE_DAYS };
	struct err e = ERR_INIT;
	int status = read_options(argc, argv, &o), given;

	if (status != EXIT_OK)
		return status;
	given = argc - optind - 1;
	for (size_t i = 0; i < ARRAY_SIZE(actions) && given >= 0; i++) {
		const char *argument = actions[i].argument;

		if (strcmp(argv[optind], actions[i].name) != 0)
			continue;
		if (given > (*argument ? 1 : 0) || (given == 0 && *argument && *argument != '['))
			return usage_error("pki", "%s takes %s", actions[i].name, *argument ? argument : "no argument");
		if (actions[i].run(given ? argv[optind + 1] : NULL, &o, &e) == 0)
			return EXIT_OK;
		complain("pki %s: %s", actions[i].name, e.message);
		return EXIT_FAILED;
	}
	return usage_error("pki", "expected init, issue, rotate, retire, revoke or show");
}

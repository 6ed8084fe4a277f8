// SPDX-License-Identifier: GPL-2.0-or-later
/* main.c - godwit: the table of verbs (godwit(1)) */
#include <getopt.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "cli/cli.h"
#include "pki/pki.h"
#include "pki/tokens.h"
#include "version.h"

static const struct command verbs[] = {
	{ "migrate", "UNIT HOST", "move a process (PID, or HOME:PID; PID,PID as one unit) to another host; home: back; USER@HOST: by ssh",
	  "  --strategy S   freeze-free (default), pre-copy, hybrid, stop-copy, copy-on-reference\n"
	  "  --files F      files that HOST lacks, or has in another version: auto (default), copy, relay, refuse\n"
	  "  --tcp T        connections with others: keep (default), close, refuse\n"
	  "  --portable     by the state that the program describes (libgodwit-portable), as between architectures\n"
	  "  --timeout T    give up after T if the process has not moved until then: 30, 500ms, 10s, 2m\n"
	  "  --ssh COMMAND  to USER@HOST: how ssh is called, 'ssh -p 2222'; default $GODWIT_SSH, or ssh\n"
	  "  --bootstrap    to USER@HOST: where godwit is not installed, copy it to a directory there and run it from that\n"
	  "  --dry-run      move nothing: say what would move, by which means, how long it would take and what could fail\n"
	  "  --json         print one JSON object and nothing else\n"
	  "  --quiet        print nothing but errors\n"
	  "Ctrl-C cancels; the process stays here, unharmed. Exit status: 0 moved (or would), 1 failed, 2 usage, 3 refused, 4 cancelled, 5 in doubt.\n",
	  verb_migrate },
	{ "run", "-- COMMAND [ARGUMENT...]", "start a program that may run elsewhere and appears local",
	  "  --node HOST    move it there as soon as it has been started\n"
	  "  --here         leave it here; without any of these it begins here, or, while balancing is on, where it is best\n"
	  "  --address A    an address that belongs to the program and moves along: 10.0.0.50/24, fd00::50/64, 10.0.0.50/24%eth0; may be given again\n"
	  "  --cpu-baseline LEVEL  it is told of no newer instructions than those of x86-64, x86-64-v2, x86-64-v3 or x86-64-v4, and can move to every processor that has these\n"
	  "  -R REQUIRE     move it to the best node that matches, or leave it here if that is this one; see `godwit help select`\n"
	  "  --strategy S   how; see `godwit help migrate`\n"
	  "The command takes the place of `godwit run`: its exit status is the command's.\n",
	  verb_run },
	{ "checkpoint", "UNIT FILE|DIR", "put a process (PID, or HOME:PID; PID,PID as one unit) into a file, from which it can go on later",
	  "  --keep-running it goes on here; without this it ends\n"
	  "  --incremental  only what is new since the last image in the directory DIR; the first one, and one now and then, is whole\n"
	  "  --files F      auto (default): what is on a disk is only named; copy: contents of all that is open are put in, too\n"
	  "  --tcp T        connections with others: keep (default: refused), close (it finds them ended when it is restored)\n"
	  "  --strategy S   pre-copy (default with --keep-running: stands still for a moment only) or stop-copy\n"
	  "  --no-compress  store memory as it is\n"
	  "  --key KEYFILE  encrypt it with the key in that file: `head -c 32 /dev/urandom | base64 >KEYFILE`, mode 0600\n"
	  "  --timeout T    give up after T: 30, 500ms, 10s, 2m\n"
	  "  --json         print a JSON object\n"
	  "  --quiet        print nothing but errors\n"
	  "FILE appears when it is whole. Exit status: 0 done, 1 failed, 2 usage, 3 refused, 4 cancelled, 5 in doubt; but for 0 and 5 the process goes on here.\n",
	  verb_checkpoint },
	{ "restore", "FILE|DIR", "let a unit go on that was put into a file, or the last that is in a directory of incremental images",
	  "  --on HOST      there, instead of here\n"
	  "  --changed-files C  files on disk that have changed since: refuse (default), accept (use them as they are)\n"
	  "  --key KEYFILE  the key that it was encrypted with\n"
	  "  --json         print a JSON object\n"
	  "  --quiet        print nothing but errors\n"
	  "Exit status: 0 it runs, 1 failed, 2 usage, 3 refused, 4 cancelled, 5 in doubt.\n",
	  verb_restore },
	{ "image", "show|core FILE", "check an image, and print what is in it, or write a core file of a process in it for a debugger",
	  "  --json         print a JSON object\n"
	  "  -o FILE        core: where to; without this core.PID in the working directory\n"
	  "  --pid PID      core: of which process, where the image has several\n"
	  "  --key KEYFILE  the key that it was encrypted with\n",
	  verb_image },
	{ "protect", "UNIT", "keep copies of a unit (PID, or HOME:PID) on other nodes, from which it goes on when its node fails",
	  "  --every T      a copy so often: 500ms, 5s (default), 2m; what it has done since is lost when its node fails\n"
	  "  --copies N     nodes that keep the last one: 1 (default, or as many as are named) to 8\n"
	  "  --to NODE      keep it there; may be given again; without this any nodes\n"
	  "  --files F      auto (default): what is on a disk is only named; copy: contents of all that is open are put in, too\n"
	  "  --tcp T        connections with others: keep (default: refused), close (it finds them ended when it goes on elsewhere)\n"
	  "  --json         print a JSON object\n"
	  "The first copy is waited for. It holds for the unit wherever it moves, until it ends; `godwit ps` says how old the last copy is.\n"
	  "When its node fails: `godwit failover`.\n",
	  verb_protect },
	{ "unprotect", "UNIT", "end that, and remove its copies", "  --json         print a JSON object\n", verb_unprotect },
	{ "failover", "NODE...", "start elsewhere what was protected on nodes that have failed",
	  "  --yes          do not ask whether they are really dead\n"
	  "  --json         print a JSON object\n"
	  "Every other node must answer. Say it only of machines that are off, or cut off for good: one that lives runs its units still, until it is\n"
	  "reachable again and ends them. Exit status: 0 all that was protected there runs, 3 something does not (and why is said).\n",
	  verb_failover },
	{ "ps", "", "list the units of the cluster: where they are, how often they moved and why",
	  "  --here         of this host only: those that are here, and those that left it and are waited for\n"
	  "  --json         print a JSON object\n",
	  verb_ps },
	{ "nodes", "", "list the nodes and how they are", "  --json         print a JSON object\n", verb_nodes },
	{ "select", "[-R REQUIRE]", "print the nodes that match a requirement, the best one first",
	  "  -R REQUIRE     select[mem>4G && (gpu || zone==east)] order[ut:-mem] rusage[mem=2000]\n"
	  "                 each part may be left out; a plain expression is a select\n"
	  "  --json         print a JSON object\n"
	  "Exit status: 0 there are some, 1 there is none.\n",
	  verb_select },
	{ "drain", "[NODE]", "move all units of a node away and keep it empty",
	  "  --parallel N   moves at once: 1 to 32; default 4\n"
	  "  --also PID     a process of that node that is no unit, too; may be given more than once\n"
	  "  --timeout T    give up after T; what has not moved then stays\n"
	  "  --dry-run      move nothing: say which unit would go where, how long it would take, and what cannot and why\n"
	  "  --json         print a JSON object\n"
	  "  --quiet        print nothing but errors\n"
	  "Ctrl-C ends the moving; the node takes nothing until `godwit undrain`, also after a restart.\n"
	  "Exit status: 0 nothing is left, 3 something stays (and why is said).\n",
	  verb_drain },
	{ "undrain", "[NODE]", "let a drained node take units again", "  --json         print a JSON object\n", verb_undrain },
	{ "balance", "on|off|status [NODE...]", "let a node's units move by themselves; `balance explain UNIT` says why one does or does not",
	  "  on, off        of the nodes that are named, of this one, or with --all of all; off at first, kept over restarts\n"
	  "  status         what each unit of the node would do now, and why\n"
	  "  explain UNIT   the same of one unit (PID, or HOME:PID), with all figures\n"
	  "  --all          all configured nodes\n"
	  "  --dry-run      instead of an action, or with on: which units would move now, each with its reason\n"
	  "  --json         print a JSON object\n",
	  verb_balance },
	{ "trace", "[UNIT]", "show what happened in a unit's last move, step by step; without UNIT list the last moves of the cluster",
	  "  --all          all moves of UNIT that are remembered\n"
	  "  --last N       so many, at most 1024; default 20 without UNIT, otherwise 1\n"
	  "  --marks        what happened within the steps, too\n"
	  "  --chrome FILE  write them for Perfetto or chrome://tracing; - is standard output\n"
	  "  --json         print a JSON object, with the fields of OpenTelemetry's traces\n"
	  "UNIT is a number or HOME:PID; it may have ended. Each node remembers the last 256 moves that began on it since its godwitd did.\n"
	  "Exit status: 0 there are some, 1 there is none.\n",
	  verb_trace },
	{ "top", "", "show nodes, units and moves under way on the terminal, and move and drain from there",
	  "  --interval T   how often it looks: 200ms to 1m, default 1s\n"
	  "  --once         print it once, as text\n"
	  "Keys: ? lists them. m moves the unit under the cursor, d drains the node, / filters, s sorts, Tab changes between nodes and units, q quits.\n",
	  verb_top },
	{ "metrics", "", "print what godwitd counts and measures, in Prometheus's text format", "For node_exporter's textfile collector, say; godwit-api serves the same as GET /metrics.\n", verb_metrics },
	{ "bridge", "[USER@HOST]", "reach a host by ssh, where nothing but sshd and godwit is set up; without a host: which there are",
	  "  --close NODE   end it\n"
	  "  --ssh COMMAND  how ssh is called: 'ssh -p 2222'; default $GODWIT_SSH, or ssh\n"
	  "  --bootstrap    where godwit is not installed, copy it to a directory there and run it from that\n"
	  "  --stdio        what ssh runs on the other host\n"
	  "  --json         print a JSON object\n"
	  "HOST is a node then, by its own name, until the bridge is closed. `godwit migrate UNIT USER@HOST` makes one by itself, which is\n"
	  "closed when nothing goes over it any more.\n",
	  verb_bridge },
	{ "dashboard", "", "show the cluster in a browser: prints an address that opens it",
	  "  --port N       listen there, on the loopback address; default 8470, or any when that is taken; 0: any\n"
	  "  --json         print JSON objects with \"url\" and \"port\"\n"
	  "Each address opens one window, in which may be done what you may do; then the next is printed. From another machine: ssh -L 8470:localhost:8470 HOST.\n"
	  "It needs enabled = yes in [api] of godwit.conf(5), and ends with Ctrl-C.\n",
	  verb_dashboard },
	{ "connections", "", "list the connections that have moved, and how their packets get there", "  --json         print a JSON object\n", verb_connections },
	{ "config", "check [FILE]", "look for what is wrong with a configuration, before godwitd reads it",
	  "  FILE           default /etc/godwit/godwit.conf\n"
	  "  --json         print a JSON object\n"
	  "Exit status: 0 it is right, 1 it is not.\n",
	  verb_config },
	{ "explain", "[CODE]", "say what a refusal means by the code that stands behind it in brackets, and what helps",
	  "  CODE           fd.tty; fd: all that begin so; without one: a list of all\n"
	  "  --json         print a JSON array\n"
	  "Exit status: 0 it is known, 1 it is not.\n",
	  verb_explain },
	{ "cluster", "ACTION", "make a cluster whose nodes have certificates, and let hosts into it",
	  "  init           this host is the first node: a CA, a certificate, a key, and the configuration\n"
	  "  token          print what another host joins with: once, within 15 minutes\n"
	  "    --ttl T      or within T: 1s to 24h\n"
	  "    --port P     where it is waited for; default 4471\n"
	  "  join HOST TOKEN  this host becomes a node; HOST is where the token was made\n"
	  "    --name N     the node's name (init, too); default the host's\n"
	  "    --address A  the address that other nodes reach it under (init, too)\n"
	  "  leave          this host is no node any more\n"
	  "  show           what it is\n"
	  "    --json       print a JSON object (token, too)\n"
	  "  --days N       how long certificates are valid (init, token); default 730\n"
	  "  --dir DIR      where the CA is; default " PKI_DEFAULT_DIRECTORY "\n"
	  "TLS 1.3 throughout; the key of a node's certificate is made on it and stays there.\n",
	  verb_cluster },
	{ "pki", "ACTION", "make certificates for the nodes, on a machine of the administrator's",
	  "  init [DIR]     a CA; default " PKI_DEFAULT_DIRECTORY "\n"
	  "  issue NODE     a certificate and a key, in DIR/nodes/NODE with all else that NODE needs; again: new ones\n"
	  "    --address A  NODE is to be believed when it is called by this address, too; may be given again\n"
	  "    --days N     how long it is valid; default 730\n"
	  "  revoke NODE    the certificates that NODE has got are valid no longer, where the new crl.pem is\n"
	  "  rotate         a new CA beside the old one; certificates of both are believed until\n"
	  "  retire         the old one is trusted no longer\n"
	  "  show FILE      what is in a file of certificates\n"
	  "    --json       print a JSON array\n"
	  "  --dir DIR      the directory that init has made\n",
	  verb_pki },
	{ "token", "ACTION [NAME]", "say who may use the API over TLS: `listen` in [api] of godwit.conf(5)",
	  "  add NAME       makes a token, which is printed once: whoever has it may do what the user may do\n"
	  "    --user USER  whose it is, on this host; default root\n"
	  "  remove NAME    it is worth nothing from now on\n"
	  "  list           names and users\n"
	  "  --file FILE    default " TOKENS_DEFAULT_PATH "\n"
	  "  --json         print JSON\n",
	  verb_token },
	{ "check", "[PID[,PID...]]", "can this kernel move processes, can this process move, and why not",
	  "  --to HOST      ask that host, too, whether it would take the process\n"
	  "  --json         print a JSON object\n"
	  "Exit status: 0 yes, 1 no.\n",
	  verb_check },
};

static void print_overview(FILE *f)
{
	size_t i;

	fputs("usage: godwit [--socket PATH] VERB ...\n\n", f);
	for (i = 0; i < ARRAY_SIZE(verbs); i++)
		fprintf(f, "  %-11s %-9s  %s\n", verbs[i].name, verbs[i].arguments, verbs[i].summary);
	fputs("  help        [VERB]     what a verb takes\n\n"
	      "godwit --version prints the version. It talks to godwitd on this host; see godwit(1).\n", f);
}

static const struct command *find_verb(const char *name)
{
	size_t i;

	for (i = 0; i < ARRAY_SIZE(verbs); i++)
		if (!strcmp(verbs[i].name, name))
			return &verbs[i];
	return NULL;
}

static void print_verb(FILE *f, const struct command *v)
{
	fprintf(f, "usage: godwit %s [OPTION...]%s%s\n%s.\n\n%s", v->name, *v->arguments ? " " : "", v->arguments, v->summary, v->help);
}

void complain(const char *format, ...)
{
	char text[ERR_MESSAGE_MAX + 256];
	va_list ap;

	va_start(ap, format);
	vsnprintf(text, sizeof(text), format, ap); // NOLINT(clang-analyzer-valist.Uninitialized): version 14 is wrong
	va_end(ap);
	fputs("godwit: ", stderr);
	put_text(stderr, text);
	fputc('\n', stderr);
}

int usage_error(const char *verb, const char *format, ...)
{
	const struct command *v = find_verb(verb);
	char text[ERR_MESSAGE_MAX];
	va_list ap;

	va_start(ap, format);
	vsnprintf(text, sizeof(text), format, ap); // NOLINT(clang-analyzer-valist.Uninitialized): version 14 is wrong
	va_end(ap);
	if (*text)
		complain("%s: %s", verb, text);
	if (v)
		print_verb(stderr, v);
	return EXIT_USAGE;
}

int option_error(const char *verb, int returned, char *const *argv)
{
	const char *word = argv[optind - 1];
	char letter[3] = { '-', (char)optopt, 0 };

	if (strncmp(word, "--", 2) != 0 && optopt)
		word = letter;
	return usage_error(verb, returned == ':' ? "%s: a value is expected" : "there is no option '%s'", word);
}

/* Levenshtein's distance of two short words; long ones count as far. */
static size_t distance(const char *a, const char *b)
{
	size_t row[32], i, j, la = strlen(a), lb = strlen(b);

	if (la > 31 || lb > 31)
		return 99;
	for (j = 0; j <= lb; j++)
		row[j] = j;
	for (i = 1; i <= la; i++) {
		size_t diagonal = row[0];

		row[0] = i;
		for (j = 1; j <= lb; j++) {
			size_t change = diagonal + (a[i - 1] != b[j - 1]);

			diagonal = row[j];
			row[j] = MIN(change, MIN(row[j], row[j - 1]) + 1);
		}
	}
	return row[lb];
}

static int unknown_verb(const char *name)
{
	size_t i, best = 0, best_distance = 99;

	for (i = 0; i < ARRAY_SIZE(verbs); i++) {
		size_t d = strncmp(verbs[i].name, name, strlen(name)) ? distance(verbs[i].name, name) : 1;

		if (d < best_distance) {
			best_distance = d;
			best = i;
		}
	}
	if (*name == '-')
		complain("there is no option '%s' before a verb; godwit help lists what there is", name);
	else if (best_distance <= 2 && best_distance < strlen(name))
		complain("there is no '%s'; did you mean 'godwit %s'? (godwit help lists all)", name, verbs[best].name);
	else
		complain("there is no '%s'; godwit help lists what there is", name);
	return EXIT_USAGE;
}

static int help(const char *name)
{
	const struct command *v = name ? find_verb(name) : NULL;

	if (name && !v)
		return unknown_verb(name);
	if (v)
		print_verb(stdout, v);
	else
		print_overview(stdout);
	return EXIT_OK;
}

int main(int argc, char **argv)
{
	const char *from_environment = getenv("GODWIT_SOCKET");
	const struct command *v;
	int i = 1;

	if (from_environment && *from_environment)
		socket_path = from_environment;
	opterr = 0; /* option_error says it */
	if (i + 1 == argc && !strcmp(argv[i], "--socket")) {
		complain("--socket: a path is expected");
		return EXIT_USAGE;
	}
	if (i + 1 < argc && !strcmp(argv[i], "--socket")) {
		socket_path = argv[i + 1];
		i += 2;
	} else if (i < argc && !strncmp(argv[i], "--socket=", 9)) {
		socket_path = argv[i] + 9;
		i++;
	}
	if (i >= argc) {
		print_overview(stderr);
		return EXIT_USAGE;
	}
	if (!strcmp(argv[i], "--version") || !strcmp(argv[i], "version")) {
		puts("godwit " GODWIT_VERSION);
		return EXIT_OK;
	}
	if (!strcmp(argv[i], "help") || !strcmp(argv[i], "--help") || !strcmp(argv[i], "-h"))
		return help(argv[i + 1]);
	v = find_verb(argv[i]);
	if (!v)
		return unknown_verb(argv[i]);
	if (i + 1 < argc && (!strcmp(argv[i + 1], "--help") || !strcmp(argv[i + 1], "-h")))
		return help(v->name);
	return v->run(argc - i, argv + i);
}

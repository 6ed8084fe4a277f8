// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * example.c - what libgodwit can do: lists nodes and units, moves a unit, follows what happens
 *
 *	cc example.c -o example $(pkg-config --cflags --libs godwit)
 *	./example                 # what there is
 *	./example n1:4711 n2      # moves a unit; Ctrl-C cancels
 *	./example --follow        # what happens, for ever
 */
#include <godwit.h>

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static volatile sig_atomic_t interrupted;

static void on_interrupt(int signal)
{
	(void)signal;
	interrupted = 1;
}

static int complain(const struct godwit_error *e)
{
	fprintf(stderr, "%s [%s]\n", e->message, e->code);
	return EXIT_FAILURE;
}

static int list(struct godwit *g)
{
	const struct godwit_node *const *nodes;
	const struct godwit_unit *const *units;
	struct godwit_error e;

	if (godwit_nodes(g, &nodes, &e) < 0)
		return complain(&e);
	for (size_t i = 0; nodes[i]; i++)
		printf("node %s: %s, load %.2f, %.0f MiB free\n", nodes[i]->name, nodes[i]->state, nodes[i]->load, nodes[i]->mem_mib);
	godwit_free(nodes);
	if (godwit_units(g, &units, &e) < 0)
		return complain(&e);
	for (size_t i = 0; units[i]; i++)
		printf("unit %s: %s on %s, moved %d times\n", units[i]->name, units[i]->command, units[i]->on, units[i]->moves);
	godwit_free(units);
	return EXIT_SUCCESS;
}

static int move(struct godwit *g, const char *unit, const char *host)
{
	const struct godwit_refusal *const *why;
	const struct godwit_result *result;
	struct godwit_move *move;
	struct godwit_error e;
	int r, asked = 0;

	signal(SIGINT, on_interrupt);
	if (godwit_move_begin(g, unit, host, NULL, &move, &e) < 0)
		return complain(&e);
	while ((r = godwit_move_wait(move, 100, &e)) == 0) {
		const struct godwit_progress *p = godwit_move_progress(move);

		fprintf(stderr, "%s: %lld of %lld pages\n", p->phase, (long long)p->pages_sent, (long long)p->pages_total);
		if (interrupted && !asked++)
			godwit_move_cancel(move, NULL);
	}
	if (r < 0) {
		complain(&e);
		for (why = godwit_move_refusals(move); *why; why++)
			fprintf(stderr, "%s: %s; %s\n", (*why)->thing, (*why)->cause, (*why)->way_out);
	} else {
		result = godwit_move_result(move);
		printf("%s is on %s now; it stood still for %.2f ms\n", result->unit, result->to, (double)result->freeze_us / 1000);
	}
	godwit_move_free(move);
	return r < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}

static int follow(struct godwit *g)
{
	const struct godwit_event *event;
	struct godwit_events *events;
	struct godwit_error e;

	if (godwit_events_open(g, &events, &e) < 0)
		return complain(&e);
	puts("following");
	while (fflush(stdout) == 0) {
		int r = godwit_events_next(events, -1, &event, &e);

		if (r < 0)
			complain(&e);
		else if (event->kind == GODWIT_UNIT_APPEARED)
			printf("%s has appeared on %s\n", event->unit->name, event->unit->on);
		else if (event->kind == GODWIT_UNIT_MOVED)
			printf("%s has moved from %s to %s\n", event->unit->name, event->from, event->to);
		else if (event->kind == GODWIT_UNIT_ENDED)
			printf("%s has ended\n", event->unit->name);
		else if (event->node)
			printf("node %s: %s\n", event->node->name, event->kind == GODWIT_NODE_GONE ? "gone" : event->node->state);
	}
	godwit_events_close(events);
	return EXIT_FAILURE;
}

int main(int argc, char **argv)
{
	struct godwit_error e;
	struct godwit *g;
	int status;

	if (argc > 3 || (argc == 2 && strcmp(argv[1], "--follow") != 0)) {
		fprintf(stderr, "usage: %s [UNIT HOST | --follow]\n", argv[0]);
		return 2;
	}
	if (godwit_open(NULL, &g, &e) < 0)
		return complain(&e);
	status = argc == 1 ? list(g) : argc == 2 ? follow(g) : move(g, argv[1], argv[2]);
	godwit_close(g);
	return status;
}

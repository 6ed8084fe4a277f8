// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * flow.c - one part of a flow; see flow.h
 *
 *	flow run DIRECTORY INDEX PARTS WIDTH HEIGHT STEPS [STEP:HOST ...]    computes; moves itself to HOST in that step
 *	flow draw DIRECTORY PICTURE.ppm                                     draws what the parts have left
 *
 * With "suggest" for HOST it asks the cluster. FLOW_PACE_US in the environment is a pause behind each step, for who wants to look on.
 *
 * The state is the strip, the step and the rows that a neighbour may ask for again. Everything else, connections and memory to compute in, is made anew where it goes on.
 */
#include "flow.h"

#include <err.h>
#include <godwit-portable.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

GODWIT_TYPE(strip_type, struct strip, GODWIT_FIELD(struct strip, index), GODWIT_FIELD(struct strip, parts), GODWIT_FIELD(struct strip, width),
	    GODWIT_FIELD(struct strip, height), GODWIT_FIELD(struct strip, first), GODWIT_FIELD(struct strip, rows), GODWIT_FIELD(struct strip, n),
	    GODWIT_FIELD_COUNTED(struct strip, f, n));

static int leave(void *arg)
{
	(void)arg;
	links_close();
	return 0;
}

static void come_back(enum godwit_moved what, void *arg)
{
	(void)arg;
	if (what == GODWIT_STAYED)
		links_open();
}

/* Whether it wants to be elsewhere in this step. */
static void wish(long step, char **wishes)
{
	for (; *wishes; wishes++) {
		char host[256] = "", suggested[256];
		long when = -1;

		if (sscanf(*wishes, "%ld:%255s", &when, host) != 2 || when != step)
			continue;
		if (!strcmp(host, "suggest")) {
			if (godwit_suggest(suggested, sizeof(suggested)) <= 0)
				continue;
			strcpy(host, suggested);
		}
		if (godwit_migrate_self(host) < 0)
			warnx("step %ld: not to %s: %s", step, host, godwit_why());
	}
}

static int run(int argc, char **argv)
{
	struct strip strip = { 0 };
	const char *pace = getenv("FLOW_PACE_US");
	double *kept = NULL, *scratch;
	long steps, step = 0, n_kept;
	int r;

	GODWIT_VAR(step);
	GODWIT_VAR_STRUCT(strip, strip_type);
	GODWIT_VAR(n_kept);
	GODWIT_VAR_COUNTED(kept, n_kept);
	godwit_on_move(leave, come_back, NULL);
	strip = (struct strip){ .index = atoi(argv[3]), .parts = atoi(argv[4]), .width = atoi(argv[5]), .height = atoi(argv[6]) };
	steps = atol(argv[7]);
	n_kept = 4l * CROSSING * strip.width;
	if (strip.parts < 1 || strip.index < 0 || strip.index >= strip.parts || strip.width < 16 || strip.height < 4 * strip.parts || argc < 8)
		errx(2, "what part of which flow is that?");
	r = godwit_portable_ready();
	if (r < 0)
		errx(1, "%s", godwit_why());
	if (r == 0) {
		lattice_place(&strip);
		lattice_begin(&strip);
		kept = calloc((size_t)n_kept, sizeof(*kept));
	}
	scratch = calloc((size_t)strip.n, sizeof(*scratch));
	if (!kept || !scratch)
		err(1, "memory");
	links_begin(&strip, argv[2]);
	for (; step < steps; step++) {
		if (r == 0)
			wish(step, argv + 8);
		r = 0; /* what it has wished for in this step has come true when it goes on */
		if (godwit_point() < 0)
			warnx("step %ld: stays: %s", step, godwit_why());
		lattice_collide(&strip);
		links_exchange(&strip, step, kept);
		lattice_stream(&strip, scratch);
		if (pace)
			usleep((useconds_t)atol(pace));
	}
	draw_save(&strip, argv[2]);
	free(scratch);
	free(kept);
	free(strip.f);
	return 0;
}

int main(int argc, char **argv)
{
	if (argc == 4 && !strcmp(argv[1], "draw"))
		return draw(argv[2], argv[3]);
	if (argc < 8 || strcmp(argv[1], "run") != 0)
		errx(2, "usage: flow run DIRECTORY INDEX PARTS WIDTH HEIGHT STEPS [STEP:HOST ...], or flow draw DIRECTORY PICTURE.ppm");
	if (godwit_portable_begin(&argc, &argv, "flow", 1) < 0)
		errx(1, "%s", godwit_why());
	return run(argc, argv);
}

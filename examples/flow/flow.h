/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * flow.h - a two-dimensional flow around a cylinder, computed by several processes that may move while they compute
 *
 * After P. A. Skordos, Parallel simulation of subsonic fluid dynamics on a cluster of workstations (1995): the lattice-Boltzmann method on a domain that is divided into strips, one a process;
 * neighbours exchange the rows at their border over TCP in every step, and a process that moves closes its connections, goes on elsewhere, and is found again by a file in a directory that all
 * of them see.
 *
 *	flow.c    main, what the state is, points      lattice.c  the computation
 *	links.c   neighbours                           draw.c     the picture
 */
#ifndef FLOW_H
#define FLOW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SPEEDS 9
#define CROSSING 3 /* of the speeds lead over a border */

/* A strip: rows 1 to `rows` are its own, 0 and rows + 1 the neighbours'. f[(speed * (rows + 2) + row) * width + x]. */
struct strip {
	int index, parts;
	int width, height; /* of the whole domain */
	int first, rows;   /* which rows are its own */
	long n;            /* numbers in f */
	double *f;
};

/* lattice.c */
void lattice_place(struct strip *s); /* first, rows, n: from the other numbers */
void lattice_begin(struct strip *s);
/* One step is: collide, exchange of the borders, stream. */
void lattice_collide(struct strip *s);
void lattice_stream(struct strip *s, double *scratch);
/* The populations that leave over the border: up (to higher rows) or down; and those that have come over it. */
void lattice_border(const struct strip *s, bool up, double *ret);
void lattice_take(struct strip *s, bool from_up, const double *row);
/* Density and speed at a place of its own. */
void lattice_look(const struct strip *s, int x, int row, double *ret_density, double *ret_ux, double *ret_uy);
bool lattice_solid(const struct strip *s, int x, int y);

/* links.c: `kept` are the rows of the last two steps, by the parity of the step, down and up: [step & 1][up][CROSSING * width]. */
void links_begin(const struct strip *s, const char *directory);
/* Exchanges the borders of this step, however often it takes; ends the program after a minute without a neighbour. */
void links_exchange(struct strip *s, long step, double *kept);
/* Before a move, and when there was none. */
void links_close(void);
void links_open(void);

/* draw.c: the vorticity of all parts, whose fields are in the directory, as a PPM picture. */
int draw(const char *directory, const char *picture);
void draw_save(const struct strip *s, const char *directory);

#endif

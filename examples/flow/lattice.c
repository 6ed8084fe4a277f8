// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * lattice.c - the lattice-Boltzmann method with nine speeds and one relaxation time (D2Q9, BGK)
 *
 * Only + - * / on doubles, in an order that the source says: with -ffp-contract=off every machine with IEEE 754 computes the same bits.
 */
#include "flow.h"

#include <err.h>
#include <stdlib.h>
#include <string.h>

#define INFLOW 0.1
#define RELAXATION 1.85 /* of the difference from equilibrium in each step: a viscosity of 0.0135 */

static const int cx[SPEEDS] = { 0, 1, 0, -1, 0, 1, -1, -1, 1 };
static const int cy[SPEEDS] = { 0, 0, 1, 0, -1, 1, 1, -1, -1 };
static const int opposite[SPEEDS] = { 0, 3, 4, 1, 2, 7, 8, 5, 6 };
static const double weight[SPEEDS] = { 4 / 9.0, 1 / 9.0, 1 / 9.0, 1 / 9.0, 1 / 9.0, 1 / 36.0, 1 / 36.0, 1 / 36.0, 1 / 36.0 };
static const int upward[CROSSING] = { 2, 5, 6 }, downward[CROSSING] = { 4, 7, 8 };

static size_t at(const struct strip *s, int q, int row, int x)
{
	return ((size_t)q * (size_t)(s->rows + 2) + (size_t)row) * (size_t)s->width + (size_t)x;
}

bool lattice_solid(const struct strip *s, int x, int y)
{
	int dx = x - s->width / 4, dy = y - s->height / 2 - 1, r = s->height / 9; /* not quite in the middle, so that eddies begin */

	return y < 0 || y >= s->height || dx * dx + dy * dy <= r * r;
}

static double equilibrium(int q, double density, double ux, double uy)
{
	double along = cx[q] * ux + cy[q] * uy, square = ux * ux + uy * uy;

	return weight[q] * density * (1 + 3 * along + 4.5 * along * along - 1.5 * square);
}

void lattice_place(struct strip *s)
{
	s->first = (int)((long)s->height * s->index / s->parts);
	s->rows = (int)((long)s->height * (s->index + 1) / s->parts) - s->first;
	s->n = (long)SPEEDS * (s->rows + 2) * s->width;
}

void lattice_begin(struct strip *s)
{
	s->f = calloc((size_t)s->n, sizeof(*s->f));
	if (!s->f)
		err(1, "memory for the strip");
	for (int q = 0; q < SPEEDS; q++)
		for (int row = 0; row < s->rows + 2; row++)
			for (int x = 0; x < s->width; x++)
				s->f[at(s, q, row, x)] = equilibrium(q, 1, INFLOW, 0);
}

void lattice_look(const struct strip *s, int x, int row, double *ret_density, double *ret_ux, double *ret_uy)
{
	double density = 0, ux = 0, uy = 0;

	for (int q = 0; q < SPEEDS; q++) {
		double f = s->f[at(s, q, row, x)];

		density += f;
		ux += cx[q] * f;
		uy += cy[q] * f;
	}
	*ret_density = density;
	*ret_ux = ux / density;
	*ret_uy = uy / density;
}

void lattice_collide(struct strip *s)
{
	for (int row = 1; row <= s->rows; row++)
		for (int x = 0; x < s->width; x++) {
			double density, ux, uy;

			lattice_look(s, x, row, &density, &ux, &uy);
			if (x == 0) {
				density = 1;
				ux = INFLOW;
				uy = 0;
			}
			for (int q = 0; q < SPEEDS; q++) {
				double *f = &s->f[at(s, q, row, x)], e = equilibrium(q, density, ux, uy);

				*f = x == 0 ? e : *f + RELAXATION * (e - *f);
			}
		}
}

void lattice_stream(struct strip *s, double *scratch)
{
	for (int q = 0; q < SPEEDS; q++)
		for (int row = 1; row <= s->rows; row++)
			for (int x = 0; x < s->width; x++) {
				int from_x = x - cx[q], from_row = row - cy[q];

				if (from_x < 0)
					from_x = 0;
				if (from_x >= s->width)
					from_x = s->width - 1; /* what leaves does not come back */
				scratch[at(s, q, row, x)] = lattice_solid(s, from_x, s->first + from_row - 1) ? s->f[at(s, opposite[q], row, x)] : s->f[at(s, q, from_row, from_x)];
			}
	memcpy(s->f, scratch, (size_t)s->n * sizeof(*s->f));
}

void lattice_border(const struct strip *s, bool up, double *ret)
{
	for (int k = 0; k < CROSSING; k++)
		memcpy(ret + k * s->width, &s->f[at(s, up ? upward[k] : downward[k], up ? s->rows : 1, 0)], (size_t)s->width * sizeof(*ret));
}

void lattice_take(struct strip *s, bool from_up, const double *row)
{
	for (int k = 0; k < CROSSING; k++)
		memcpy(&s->f[at(s, from_up ? downward[k] : upward[k], from_up ? s->rows + 1 : 0, 0)], row + k * s->width, (size_t)s->width * sizeof(*row));
}

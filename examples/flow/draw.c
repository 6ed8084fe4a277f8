// SPDX-License-Identifier: GPL-2.0-or-later
/* draw.c - fields of parts in files, and a picture of all: blue where the flow turns one way, red where the other, grey where the cylinder is */
#include "flow.h"

#include <err.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define STRONG 0.03 /* a vorticity that has the full colour */

/* "WIDTH HEIGHT FIRST ROWS\n", then density and both speeds of each place as 16 hexadecimal digits: the same text for the same bits on every machine. */
void draw_save(const struct strip *s, const char *directory)
{
	char path[4096];
	FILE *f;

	snprintf(path, sizeof(path), "%s/field.%d", directory, s->index);
	f = fopen(path, "w");
	if (!f)
		err(1, "%s", path);
	fprintf(f, "%d %d %d %d\n", s->width, s->height, s->first, s->rows);
	for (int row = 1; row <= s->rows; row++)
		for (int x = 0; x < s->width; x++) {
			double v[3];
			uint64_t bits[3];

			lattice_look(s, x, row, &v[0], &v[1], &v[2]);
			memcpy(bits, v, sizeof(bits));
			fprintf(f, "%016llx %016llx %016llx\n", (unsigned long long)bits[0], (unsigned long long)bits[1], (unsigned long long)bits[2]);
		}
	if (fclose(f) != 0)
		err(1, "%s", path);
}

struct field {
	int width, height;
	double *ux, *uy;
};

/* True: there was a part of this number. */
static bool read_part(const char *directory, int index, struct field *field)
{
	char path[4096];
	int width, height, first, rows;
	FILE *f;

	snprintf(path, sizeof(path), "%s/field.%d", directory, index);
	f = fopen(path, "r");
	if (!f)
		return false;
	if (fscanf(f, "%d %d %d %d", &width, &height, &first, &rows) != 4 || width < 2 || height < 2 || width > 100000 || height > 100000 || first < 0 || rows < 0 || first + rows > height)
		errx(1, "%s is no field", path);
	if (!field->ux) {
		*field = (struct field){ width, height, calloc((size_t)width * (size_t)height, 8), calloc((size_t)width * (size_t)height, 8) };
		if (!field->ux || !field->uy)
			err(1, "memory for the picture");
	}
	if (width != field->width || height != field->height)
		errx(1, "%s is of another flow", path);
	for (long i = (long)first * width; i < (long)(first + rows) * width; i++) {
		unsigned long long bits[3];

		if (fscanf(f, "%16llx %16llx %16llx", &bits[0], &bits[1], &bits[2]) != 3)
			errx(1, "%s ends early", path);
		memcpy(&field->ux[i], &bits[1], 8);
		memcpy(&field->uy[i], &bits[2], 8);
	}
	fclose(f);
	return true;
}

static double vorticity(const struct field *v, int x, int y)
{
	int left = x ? x - 1 : 0, right = x + 1 < v->width ? x + 1 : x, below = y ? y - 1 : 0, above = y + 1 < v->height ? y + 1 : y;

	return (v->uy[(long)y * v->width + right] - v->uy[(long)y * v->width + left]) / 2 - (v->ux[(long)above * v->width + x] - v->ux[(long)below * v->width + x]) / 2;
}

static unsigned char shade(double x)
{
	return (unsigned char)(x < 0 ? 0 : x > 1 ? 255 : 255 * x);
}

int draw(const char *directory, const char *picture)
{
	struct field field = { 0 };
	struct strip whole = { 0 };
	FILE *f;
	int parts = 0;

	while (read_part(directory, parts, &field))
		parts++;
	if (!parts)
		errx(1, "%s has no field.0: has the flow ended?", directory);
	f = fopen(picture, "w");
	if (!f)
		err(1, "%s", picture);
	whole.width = field.width;
	whole.height = field.height;
	fprintf(f, "P6\n%d %d\n255\n", field.width, field.height);
	for (int y = field.height - 1; y >= 0; y--)
		for (int x = 0; x < field.width; x++) {
			double turn = vorticity(&field, x, y) / STRONG;
			unsigned char grey[3] = { 90, 90, 90 }, colour[3] = { shade(1 + turn), shade(1 - (turn < 0 ? -turn : turn)), shade(1 - turn) };

			fwrite(lattice_solid(&whole, x, y) ? grey : colour, 1, 3, f);
		}
	if (fclose(f) != 0)
		err(1, "%s", picture);
	return 0;
}

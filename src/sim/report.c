// SPDX-License-Identifier: GPL-2.0-or-later
/* report.c - results as a table and as a plot (SVG 1.1) */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/util.h"
#include "sim/sim.h"

#define WIDTH 720
#define HEIGHT 420
#define LEFT 70
#define RIGHT 180
#define TOP 40
#define BOTTOM 55
#define TICKS 5

void report_table(const char *title, const char *const *names, const struct sim_result *results, size_t n)
{
	printf("%s\n%-26s %9s %8s %8s %8s %9s %8s %8s %8s %7s\n", title, "", "jobs", "mean", "p99", ">10 s", "moves/job", "refused", "age s", "msg/s", "wall s");
	for (size_t i = 0; i < n; i++) {
		const struct sim_result *r = &results[i];

		printf("%-26s %9llu %8.3f %8.2f %8.3f %9.3f %8llu %8.2f %8.2f %7.1f\n", names[i], (unsigned long long)r->jobs, r->slowdown_mean, r->slowdown_p99,
		       r->long_mean, r->moves_a_job, (unsigned long long)r->refused, r->age_mean_s, r->messages_node_s, r->wall_s);
	}
}

struct axes {
	double x0, x1, y0, y1;
	bool log_x;
};

static double x_of(const struct axes *a, double x)
{
	double part = a->log_x ? (log10(x) - log10(a->x0)) / (log10(a->x1) - log10(a->x0)) : (x - a->x0) / (a->x1 - a->x0);

	return LEFT + part * (WIDTH - LEFT - RIGHT);
}

static double y_of(const struct axes *a, double y)
{
	return HEIGHT - BOTTOM - (y - a->y0) / (a->y1 - a->y0) * (HEIGHT - TOP - BOTTOM);
}

/* 1, 2 or 5 times a power of ten, so that some TICKS fit. */
static double tick_of(double range)
{
	double raw = range / TICKS, power = pow(10, floor(log10(raw))), left = raw / power;

	return power * (left < 1.5 ? 1 : left < 3.5 ? 2 : left < 7.5 ? 5 : 10);
}

static void text(FILE *f, double x, double y, const char *anchor, const char *more, const char *s)
{
	fprintf(f, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\"%s>", x, y, anchor, more);
	for (; *s; s++)
		if (*s == '<' || *s == '>' || *s == '&')
			fprintf(f, "&#%d;", *s);
		else
			fputc(*s, f);
	fputs("</text>\n", f);
}

static void draw_axes(FILE *f, const struct axes *a, const char *x_label, const char *y_label)
{
	double step = tick_of(a->y1 - a->y0);
	char s[64];

	for (int i = (int)ceil(a->y0 / step); i * step <= a->y1 + step / 1e6; i++) {
		double y = i * step;

		fprintf(f, "<line x1=\"%d\" y1=\"%.1f\" x2=\"%d\" y2=\"%.1f\" stroke=\"#ddd\"/>\n", LEFT, y_of(a, y), WIDTH - RIGHT, y_of(a, y));
		snprintf(s, sizeof(s), "%g", fabs(y) < step / 1e6 ? 0 : y);
		text(f, LEFT - 8, y_of(a, y) + 4, "end", "", s);
	}
	step = a->log_x ? 0 : tick_of(a->x1 - a->x0);
	for (int i = (int)ceil(a->log_x ? log10(a->x0) : a->x0 / step);; i++) {
		double x = a->log_x ? pow(10, i) : i * step;

		if (x > a->x1 * (1 + 1e-9))
			break;
		fprintf(f, "<line x1=\"%.1f\" y1=\"%d\" x2=\"%.1f\" y2=\"%d\" stroke=\"#ddd\"/>\n", x_of(a, x), TOP, x_of(a, x), HEIGHT - BOTTOM);
		snprintf(s, sizeof(s), "%g", x);
		text(f, x_of(a, x), HEIGHT - BOTTOM + 18, "middle", "", s);
	}
	text(f, (LEFT + WIDTH - RIGHT) / 2.0, HEIGHT - 14, "middle", "", x_label);
	snprintf(s, sizeof(s), " transform=\"rotate(-90 16 %d)\"", HEIGHT / 2);
	text(f, 16, HEIGHT / 2.0, "middle", s, y_label);
}

static struct axes fit(const double *x, const double *const *y, size_t n_series, size_t n_points, bool log_x)
{
	struct axes a = { x[0], x[0], 0, 0, log_x };

	for (size_t i = 0; i < n_points; i++) {
		a.x0 = MIN(a.x0, x[i]);
		a.x1 = MAX(a.x1, x[i]);
		for (size_t j = 0; j < n_series; j++)
			if (isfinite(y[j][i]))
				a.y1 = MAX(a.y1, y[j][i]);
	}
	a.x1 += a.x1 == a.x0;
	a.y1 = a.y1 > 0 ? a.y1 * 1.05 : 1;
	return a;
}

int report_svg(const char *path, const char *title, const char *x_label, const char *y_label, const char *const *names, const double *x, const double *const *y,
	       size_t n_series, size_t n_points, bool log_x, struct err *e)
{
	static const char *const colours[] = { "#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#888888", "#000000" }; /* Tol's bright scheme */
	struct axes a = fit(x, y, n_series, n_points, log_x);
	cleanup_fclose FILE *f = fopen(path, "we");

	if (!f)
		return err_sys(e, -errno, "%s", path);
	fprintf(f, "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%d\" viewBox=\"0 0 %d %d\" font-family=\"sans-serif\" font-size=\"12\">\n"
		   "<rect width=\"100%%\" height=\"100%%\" fill=\"#fff\"/>\n", WIDTH, HEIGHT, WIDTH, HEIGHT);
	text(f, LEFT, 24, "start", " font-size=\"15\"", title);
	draw_axes(f, &a, x_label, y_label);
	for (size_t j = 0; j < n_series; j++) {
		const char *colour = colours[j % ARRAY_SIZE(colours)];

		fprintf(f, "<polyline fill=\"none\" stroke=\"%s\" stroke-width=\"2\" points=\"", colour);
		for (size_t i = 0; i < n_points; i++)
			if (isfinite(y[j][i]))
				fprintf(f, "%.1f,%.1f ", x_of(&a, x[i]), y_of(&a, y[j][i]));
		fprintf(f, "\"/>\n<rect x=\"%d\" y=\"%zu\" width=\"12\" height=\"12\" fill=\"%s\"/>\n", WIDTH - RIGHT + 14, TOP + 20 * j, colour);
		text(f, WIDTH - RIGHT + 32, TOP + 20.0 * (double)j + 11, "start", "", names[j]);
	}
	fputs("</svg>\n", f);
	return fflush(f) || ferror(f) ? err_sys(e, -EIO, "%s", path) : 0;
}

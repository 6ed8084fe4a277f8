// SPDX-License-Identifier: GPL-2.0-or-later
/* show.c - tables, numbers and text for people; durations and process numbers from them */
#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>

#include "base/util.h"
#include "cli/cli.h"
#include "image/secret.h"

#define GAP 2 /* between columns */
#define DURATION_MAX_MS (24.0 * 3600 * 1000)

const char *text_of(const json_t *o, const char *key)
{
	const char *text = json_string_value(json_object_get(o, key));

	return text ? text : "";
}

long long number_of(const json_t *o, const char *key)
{
	return (long long)json_number_value(json_object_get(o, key));
}

void put_text(FILE *f, const char *text)
{
	for (; *text; text++)
		fputc((unsigned char)*text < ' ' || *text == 127 ? '?' : *text, f);
}

void bytes_text(double bytes, char text[16])
{
	static const char *const units[] = { "B", "KiB", "MiB", "GiB", "TiB" };
	size_t i = 0;

	while (bytes >= 1024 && i + 1 < ARRAY_SIZE(units)) {
		bytes /= 1024;
		i++;
	}
	snprintf(text, 16, i ? "%.1f %s" : "%.0f %s", bytes, units[i]);
}

void elapsed_text(double ns, char text[24])
{
	if (ns < 9999500)
		snprintf(text, 24, "%.3f ms", ns / 1e6);
	else if (ns < 9.9995e9)
		snprintf(text, 24, "%.1f ms", ns / 1e6);
	else
		snprintf(text, 24, "%.1f s", ns / 1e9);
}

void since_text(long long since, char text[32])
{
	time_t then = (time_t)since, now = time(NULL);
	struct tm tm;

	text[0] = 0;
	if (since && localtime_r(&then, &tm))
		strftime(text, 32, now - then < 86400 ? "%H:%M:%S" : "%Y-%m-%d", &tm);
}

void count_text(long long n, char text[32])
{
	char plain[24];
	size_t len, i, out = 0;

	len = (size_t)snprintf(plain, sizeof(plain), "%lld", n);
	for (i = 0; i < len; i++) {
		if (i && (len - i) % 3 == 0 && plain[i - 1] != '-')
			text[out++] = ',';
		text[out++] = plain[i];
	}
	text[out] = 0;
}

void show_refusals(FILE *f, const json_t *refusals)
{
	const json_t *r;
	size_t i;

	json_array_foreach(refusals, i, r) {
		fputs("  ", f);
		put_text(f, text_of(r, "thing"));
		fputs(": ", f);
		put_text(f, text_of(r, "cause"));
		fputs("\n      what to do: ", f);
		put_text(f, text_of(r, "way_out"));
		fputs(" [", f);
		put_text(f, text_of(r, "code"));
		fputs("]\n", f);
	}
}

void show_json(const json_t *o)
{
	json_dumpf(o, stdout, JSON_INDENT(2));
	putchar('\n');
}

/* Characters, not bytes, of UTF-8. */
static size_t text_width(const char *text)
{
	size_t n = 0;

	for (; *text; text++)
		n += ((unsigned char)*text & 0xc0) != 0x80;
	return n;
}

static void widths_of(char *const *cells, size_t n_cells, size_t columns, size_t *ret)
{
	for (size_t i = 0; i < n_cells; i++)
		ret[i % columns] = MAX(ret[i % columns], text_width(cells[i]));
}

/* The first column, and those from `from` to before `to`. */
static void show_columns(char *const *row, const size_t *width, size_t from, size_t to)
{
	for (size_t i = 0; i < to; i = i ? i + 1 : MAX(from, (size_t)1)) {
		bool last = i == to - 1 || to == 1;

		put_text(stdout, row[i]);
		if (last)
			putchar('\n');
		else
			printf("%*s", (int)(width[i] - text_width(row[i])) + GAP, "");
	}
}

void show_table(char *const *cells, size_t n_cells, size_t columns)
{
	cleanup_free size_t *width = calloc(columns, sizeof(*width));

	if (!width)
		return;
	widths_of(cells, n_cells, columns, width);
	for (size_t i = 0; i < n_cells; i += columns)
		show_columns(&cells[i], width, 1, columns);
}

/* SIZE_MAX: it is no terminal, or does not say. */
static size_t room_of_terminal(void)
{
	struct winsize size;

	return ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col ? size.ws_col : SIZE_MAX;
}

void show_table_in_parts(char *const *cells, size_t n_cells, size_t columns)
{
	cleanup_free size_t *width = calloc(columns, sizeof(*width));
	size_t room = room_of_terminal(), to;

	if (!width)
		return;
	widths_of(cells, n_cells, columns, width);
	for (size_t from = 1; from < columns; from = to) {
		size_t used = width[0] + GAP + width[from];

		for (to = from + 1; to < columns && used + GAP + width[to] <= room; to++)
			used += GAP + width[to];
		if (from > 1)
			putchar('\n');
		for (size_t i = 0; i < n_cells; i += columns)
			show_columns(&cells[i], width, from, to);
	}
}

int duration_parse(const char *text, unsigned *ret_ms, struct err *e)
{
	static const struct {
		const char *suffix;
		double ms;
	} units[] = { { "", 1000 }, { "ms", 1 }, { "s", 1000 }, { "m", 60000 }, { "h", 3600000 } };
	char *end;
	double value = strtod(text, &end);
	size_t i;

	for (i = 0; i < ARRAY_SIZE(units); i++)
		if (!strcmp(end, units[i].suffix))
			break;
	if (!(isdigit((unsigned char)text[0]) || text[0] == '.') || end == text || strpbrk(text, "xXpP") || i == ARRAY_SIZE(units))
		return err_set(e, -EINVAL, "'%.40s' is no duration: write seconds, or 500ms, 10s, 2m", text);
	value = ceil(value * units[i].ms);
	if (!(value <= DURATION_MAX_MS))
		return err_set(e, -EINVAL, "'%.40s' is longer than a day", text);
	*ret_ms = (unsigned)value;
	return 0;
}

int pid_parse(const char *text, int *ret_pid, struct err *e)
{
	char *end;
	long pid = strtol(text, &end, 10);

	if (!isdigit((unsigned char)text[0]) || *end || pid < 1 || pid > INT_MAX)
		return err_set(e, -EINVAL, "'%.40s' is no process number", text);
	*ret_pid = (int)pid;
	return 0;
}

int key_read(const char *path, struct archive_key *ret, struct err *e)
{
	_Static_assert(sizeof(ret->bytes) == SECRET_BYTES, "a key");
	return secret_read(path, "an image's key", ret->bytes, e);
}

int key_set(json_t *request, const char *path, struct err *e)
{
	char digits[2 * ARCHIVE_KEY_BYTES + 1];
	struct archive_key key;

	if (key_read(path, &key, e) < 0)
		return e->code;
	for (size_t i = 0; i < sizeof(key.bytes); i++)
		snprintf(digits + 2 * i, 3, "%02x", key.bytes[i]);
	json_object_set_new(request, "key", json_string(digits));
	explicit_bzero(&key, sizeof(key));
	explicit_bzero(digits, sizeof(digits));
	return 0;
}

int pids_parse(const char *text, int *ret_pid, json_t *request, struct err *e)
{
	json_t *also = json_array();
	int ret = 0, n = 0;

	for (const char *at = text; ret == 0 && at; n++) {
		const char *end = strchr(at, ',');
		char word[48];
		int pid;

		snprintf(word, sizeof(word), "%.*s", (int)(end ? end - at : (ptrdiff_t)strlen(at)), at);
		ret = pid_parse(word, n ? &pid : ret_pid, e);
		if (ret == 0 && n)
			json_array_append_new(also, json_integer(pid));
		at = end ? end + 1 : NULL;
	}
	if (ret < 0 || n == 1)
		json_decref(also);
	else
		json_object_set_new(request, "also", also);
	return ret;
}

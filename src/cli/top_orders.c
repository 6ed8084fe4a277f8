// SPDX-License-Identifier: GPL-2.0-or-later
/* top_orders.c - moves and drains that were begun in godwit top; see top.h. A conversation that is closed is interrupted. */
#include <stdarg.h>
#include <string.h>

#include "base/util.h"
#include "cli/top.h"

void top_say(struct top *t, bool wrong, const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	vsnprintf(t->said, sizeof(t->said), format, ap); // NOLINT(clang-analyzer-valist.Uninitialized): version 14 is wrong
	va_end(ap);
	t->said_wrong = wrong;
}

size_t top_orders_running(const struct top *t)
{
	size_t n = 0;

	for (size_t i = 0; i < TOP_ORDERS; i++)
		n += t->orders[i].ask.fd >= 0;
	return n;
}

void top_order(struct top *t, json_t *request, bool drains, const char *what)
{
	struct err e = ERR_INIT;

	for (size_t i = 0; i < TOP_ORDERS; i++) {
		struct top_order *o = &t->orders[i];

		if (o->ask.fd >= 0)
			continue;
		if (ask_open(&o->ask, request, &e) < 0) {
			top_say(t, true, "%s: %s", what, e.message);
			return;
		}
		o->drains = drains;
		snprintf(o->what, sizeof(o->what), "%s", what);
		top_say(t, false, "%s ...", what);
		return;
	}
	json_decref(request);
	top_say(t, true, "%u orders are under way already: wait until some have ended", TOP_ORDERS);
}

size_t top_orders_poll(const struct top *t, struct pollfd *p)
{
	size_t n = 0;

	for (size_t i = 0; i < TOP_ORDERS; i++)
		if (t->orders[i].ask.fd >= 0)
			p[n++] = (struct pollfd){ .fd = t->orders[i].ask.fd, .events = POLLIN };
	return n;
}

static void say_result(struct top *t, const struct top_order *o, const json_t *result)
{
	size_t stays = json_array_size(json_object_get(result, "stayed"));

	if (!strncmp(o->what, "undrain", 7))
		top_say(t, false, "%s: it takes units again", o->what);
	else if (o->drains)
		top_say(t, stays > 0, "%s: %zu moved, %zu stay", o->what, json_array_size(json_object_get(result, "moved")), stays);
	else
		top_say(t, false, "%s: it runs there, frozen for %.2f ms", o->what, (double)number_of(result, "freeze_us") / 1e3);
}

/* true: it is over. */
static bool hear(struct top *t, const struct top_order *o, const json_t *line)
{
	const char *event = text_of(line, "event");
	const json_t *error = json_object_get(line, "error"), *refusals = json_object_get(error, "refusals");

	if (!strcmp(event, "result")) {
		say_result(t, o, json_object_get(line, "result"));
		return true;
	}
	if (!strcmp(event, "error")) {
		const json_t *why = json_array_get(refusals, 0);

		if (why)
			top_say(t, true, "%s: refused: %s: %s (what to do: %s)", o->what, text_of(why, "thing"), text_of(why, "cause"), text_of(why, "way_out"));
		else
			top_say(t, true, "%s: %s", o->what, text_of(error, "message"));
		return true;
	}
	if (o->drains && !strcmp(event, "progress"))
		top_say(t, false, "%s: %lld moved, %lld moving, %lld left", o->what, number_of(line, "moved"), number_of(line, "moving"), number_of(line, "left"));
	return false;
}

void top_orders_read(struct top *t)
{
	for (size_t i = 0; i < TOP_ORDERS; i++) {
		struct top_order *o = &t->orders[i];
		struct err e = ERR_INIT;
		json_t *line = NULL;
		bool over = false;
		int r = 0;

		while (o->ask.fd >= 0 && !over && (r = ask_next(&o->ask, false, &line, &e)) > 0) {
			over = hear(t, o, line);
			json_decref(line);
			line = NULL;
		}
		if (r < 0)
			top_say(t, true, "%s: %s", o->what, e.message);
		if (over || r < 0)
			ask_close(&o->ask);
	}
}

void top_orders_cancel(struct top *t)
{
	for (size_t i = 0; i < TOP_ORDERS; i++) {
		struct top_order *o = &t->orders[i];

		if (o->ask.fd >= 0 && o->drains)
			ask_close(&o->ask);
		else if (o->ask.fd >= 0)
			ask_send(&o->ask, json_pack("{s:s}", "verb", "cancel"), NULL);
	}
}

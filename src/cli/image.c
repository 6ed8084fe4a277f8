// SPDX-License-Identifier: GPL-2.0-or-later
/* image.c - godwit image show, core: what is in an image, and a core file of it; reads the file itself, whether or not godwitd runs */
#include <errno.h>
#include <getopt.h>
#include <string.h>
#include <time.h>

#include "base/util.h"
#include "cli/cli.h"
#include "control.pb-c.h"
#include "image.pb-c.h"
#include "migrate/image_core.h"
#include "wire/archive_chain.h"
#include "wire/hello.h"

struct image {
	Gw__ImageHead *head;
	Gw__ImageSummary *summary;
	Gw__Hello *hello;
	uint64_t file_bytes, raw_bytes;
	bool encrypted, of_chain;
	json_t *needs; /* names of the images that it needs */
};

static void free_image(struct image *m)
{
	if (m->head)
		gw__image_head__free_unpacked(m->head, NULL);
	if (m->summary)
		gw__image_summary__free_unpacked(m->summary, NULL);
	if (m->hello)
		hello_free(&m->hello);
	json_decref(m->needs);
}

/* What is not UTF-8 is left out. */
static json_t *string(const char *text)
{
	json_t *s = json_string(text);

	return s ? s : json_string("?");
}

static int note_chain(const struct archive_reader *r, struct image *m)
{
	uint32_t n;
	const struct archive_link *links = archive_links(r, &n, &m->of_chain);

	m->needs = json_array();
	for (uint32_t i = 0; i < n; i++)
		json_array_append_new(m->needs, string(links[i].name));
	return 0;
}

/* All of it, so that what is shown can be restored as far as the file is concerned. */
static int read_image(const char *given, const struct archive_key *key, struct image *m, struct err *e)
{
	char path[PATH_MAX];
	cleanup_archive struct archive_reader *r = NULL;
	struct archive_record record;
	int ret = archive_newest(given, path, e);

	if (ret == 0)
		ret = archive_open(path, -1, key, &r, e);
	while (ret >= 0 && (ret = archive_next(r, true, &record, e)) > 0) {
		if (record.kind == ARCHIVE_HEAD)
			m->head = gw__image_head__unpack(NULL, record.len, record.data);
		if (record.kind == ARCHIVE_SUMMARY && !m->summary)
			m->summary = gw__image_summary__unpack(NULL, record.len, record.data);
	}
	if (ret < 0)
		return ret;
	if (ret == 0)
		ret = archive_check_links(r, true, e);
	if (ret == 0)
		ret = note_chain(r, m);
	if (ret < 0)
		return ret;
	if (!m->head || !m->summary)
		return err_set(e, -EBADMSG, "%s does not say what it is of", path);
	m->file_bytes = archive_size(r);
	m->raw_bytes = archive_read_bytes(r);
	m->encrypted = key;
	return hello_decode(m->head->hello.data, m->head->hello.len, &m->hello, e);
}

static void time_text(uint64_t realtime_ns, char text[32])
{
	time_t s = (time_t)(realtime_ns / 1000000000u);
	struct tm tm;

	gmtime_r(&s, &tm);
	strftime(text, 32, "%Y-%m-%dT%H:%M:%SZ", &tm);
}

static json_t *processes(const Gw__ImageSummary *s)
{
	json_t *list = json_array();

	for (size_t i = 0; i < s->n_processes; i++) {
		const Gw__ImageProcess *p = s->processes[i];

		json_array_append_new(list, json_pack("{s:i, s:i, s:o, s:o, s:i, s:i, s:I, s:I}", "pid", p->pid, "parent", p->parent, "name", string(p->name), "program", string(p->program),
						      "threads", (int)p->threads, "mappings", (int)p->mappings, "mapped_bytes", (json_int_t)p->mapped_bytes, "pages", (json_int_t)p->pages));
	}
	return list;
}

static json_t *files(const Gw__ImageSummary *s)
{
	json_t *list = json_array();

	for (size_t i = 0; i < s->n_files; i++)
		json_array_append_new(list, json_pack("{s:o, s:I, s:I, s:b}", "path", string(s->files[i]->path), "size", (json_int_t)s->files[i]->size, "mtime_ns",
						      (json_int_t)s->files[i]->mtime_ns, "inside", s->files[i]->inside));
	return list;
}

static json_t *to_json(const struct image *m)
{
	const Gw__ImageSummary *s = m->summary;
	json_t *descriptors = json_object(), *listeners = json_array();
	char when[32];

	for (size_t i = 0; i < s->n_descriptors; i++)
		json_object_set_new(descriptors, s->descriptors[i]->what, json_integer((json_int_t)s->descriptors[i]->n));
	for (size_t i = 0; i < s->n_listeners; i++)
		json_array_append_new(listeners, string(s->listeners[i]));
	time_text(s->realtime_ns, when);
	return json_pack("{s:o, s:o, s:s, s:o, s:s, s:s, s:s, s:b, s:s, s:I, s:I, s:I, s:I, s:o, s:o, s:o, s:o, s:b, s:O}", "unit", string(m->head->unit), "node", string(m->head->node), "time", when,
			 "godwit", string(m->head->godwit), "kernel", m->hello->kernel, "arch", m->hello->arch, "boot_id", m->hello->boot_id, "keep_running", m->head->keep_running, "strategy",
			 s->strategy, "file_bytes", (json_int_t)m->file_bytes, "raw_bytes", (json_int_t)m->raw_bytes, "page_bytes", (json_int_t)s->page_bytes, "content_bytes",
			 (json_int_t)s->content_bytes, "processes", processes(s), "descriptors", descriptors, "listeners", listeners, "files", files(s), "incremental", json_array_size(m->needs) > 0, "needs", m->needs);
}

static void show_processes(const Gw__ImageSummary *s)
{
	printf("Processes: %zu\n", s->n_processes);
	for (size_t i = 0; i < s->n_processes; i++) {
		const Gw__ImageProcess *p = s->processes[i];
		char mapped[16], held[16];

		bytes_text((double)p->mapped_bytes, mapped);
		bytes_text((double)p->pages * PAGE_SIZE_BYTES, held);
		printf("  %d (parent %d) ", p->pid, p->parent);
		put_text(stdout, p->name);
		fputs(", ", stdout);
		put_text(stdout, p->program);
		printf(": %u thread%s, %s mapped, %s of pages\n", p->threads, p->threads == 1 ? "" : "s", mapped, held);
	}
}

static void show_files(const Gw__ImageSummary *s)
{
	for (int inside = 1; inside >= 0; inside--) {
		size_t n = 0;

		for (size_t i = 0; i < s->n_files; i++)
			n += s->files[i]->inside == inside && (inside || s->files[i]->known);
		printf(inside ? "Files in the image: %zu\n" : "Files that it needs as they were: %zu\n", n);
		for (size_t i = 0; i < s->n_files; i++) {
			char bytes[16];

			if (s->files[i]->inside != inside || (!inside && !s->files[i]->known))
				continue;
			bytes_text((double)s->files[i]->size, bytes);
			fputs("  ", stdout);
			put_text(stdout, s->files[i]->path);
			printf(" (%s)\n", bytes);
		}
	}
}

static void show(const struct image *m)
{
	const Gw__ImageSummary *s = m->summary;
	char file[16], raw[16], when[32];

	bytes_text((double)m->file_bytes, file);
	bytes_text((double)m->raw_bytes, raw);
	time_text(s->realtime_ns, when);
	fputs("Unit ", stdout);
	put_text(stdout, m->head->unit);
	fputs(", taken on ", stdout);
	put_text(stdout, m->head->node);
	printf(" at %s by Godwit ", when);
	put_text(stdout, m->head->godwit);
	printf(" (%s); Linux ", m->head->keep_running ? "it went on" : "it ended");
	put_text(stdout, m->hello->kernel);
	printf(", ");
	put_text(stdout, m->hello->arch);
	printf("\nThe image is whole: %s, %s uncompressed%s\n", file, raw, m->encrypted ? "; it is encrypted" : "");
	if (json_array_size(m->needs)) {
		fputs("It says what is new since ", stdout);
		put_text(stdout, json_string_value(json_array_get(m->needs, json_array_size(m->needs) - 1)));
		printf(", and needs %zu image%s beside it, which are there\n", json_array_size(m->needs), json_array_size(m->needs) == 1 ? "" : "s");
	}
	show_processes(s);
	printf("Descriptions:");
	for (size_t i = 0; i < s->n_descriptors; i++) {
		fputs(i ? ", " : " ", stdout);
		printf("%llu ", (unsigned long long)s->descriptors[i]->n);
		put_text(stdout, s->descriptors[i]->what);
	}
	printf("%s\n", s->n_descriptors ? "" : " none");
	for (size_t i = 0; i < s->n_listeners; i++) {
		fputs(i ? ", " : "Listens on: ", stdout);
		put_text(stdout, s->listeners[i]);
	}
	fputs(s->n_listeners ? "\n" : "", stdout);
	show_files(s);
}

static int show_image(const char *path, const struct archive_key *key, bool as_json, struct err *e)
{
	struct image m = { 0 };
	int ret = read_image(path, key, &m, e);

	if (ret == 0 && as_json) {
		json_t *j = to_json(&m);

		show_json(j);
		json_decref(j);
	} else if (ret == 0) {
		show(&m);
	}
	free_image(&m);
	return ret;
}

static int make_core(const char *path, const struct archive_key *key, pid_t pid, const char *out, bool as_json, struct err *e)
{
	struct core_made made;
	char bytes[16];
	int ret = image_core(path, key, pid, out, &made, e);

	if (ret < 0)
		return ret;
	if (as_json) {
		json_t *j = json_pack("{s:i, s:o, s:i, s:i, s:I, s:I}", "pid", (int)made.pid, "path", string(made.path), "threads", (int)made.threads, "mappings", (int)made.mappings,
				      "memory_bytes", (json_int_t)made.memory_bytes, "file_bytes", (json_int_t)made.file_bytes);

		show_json(j);
		json_decref(j);
		return 0;
	}
	bytes_text((double)made.file_bytes, bytes);
	printf("Process %d, %u thread%s: ", made.pid, made.threads, made.threads == 1 ? "" : "s");
	put_text(stdout, made.path);
	printf(" (%s)\n", bytes);
	return 0;
}

int verb_image(int argc, char **argv)
{
	static const struct option options[] = {
		{ "json", no_argument, NULL, 'j' }, { "output", required_argument, NULL, 'o' }, { "pid", required_argument, NULL, 'p' },
		{ "key", required_argument, NULL, 'K' }, { 0 },
	};
	struct err e = ERR_INIT;
	const char *out = NULL;
	bool as_json = false;
	struct archive_key key;
	bool has_key = false;
	int o, ret, pid = 0;

	optind = 1;
	while ((o = getopt_long(argc, argv, ":o:", options, NULL)) != -1) {
		if (o == 'j')
			as_json = true;
		else if (o == 'o')
			out = optarg;
		else if (o == 'K' && key_read(optarg, &key, &e) < 0)
			return usage_error("image", "--key: %s", e.message);
		else if (o == 'K')
			has_key = true;
		else if (o != 'p')
			return option_error("image", o, argv);
		else if (pid_parse(optarg, &pid, &e) < 0)
			return usage_error("image", "--pid: %s", e.message);
	}
	if (argc - optind != 2 || (strcmp(argv[optind], "show") != 0 && strcmp(argv[optind], "core") != 0))
		return usage_error("image", "expected `show` or `core`, and a file");
	if (!strcmp(argv[optind], "show") && (out || pid))
		return usage_error("image", "show has no options but --json and --key");
	if (!strcmp(argv[optind], "show"))
		ret = show_image(argv[optind + 1], has_key ? &key : NULL, as_json, &e);
	else
		ret = make_core(argv[optind + 1], has_key ? &key : NULL, pid, out, as_json, &e);
	explicit_bzero(&key, sizeof(key));
	if (ret < 0)
		complain("%s", e.message);
	return ret < 0 ? EXIT_FAILED : EXIT_OK;
}

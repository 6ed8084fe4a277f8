/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * program.c - the variables and files that a program names, how it begins, and its state in files
 *
 * GODWIT_PORTABLE_STATE in the environment says that the program goes on: it is the path of a state, or "fd:N". It is taken out of the
 * environment, so that programs which this one starts begin afresh.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "portable/program.h"

#define NAME_MAX_BYTES 255u

struct program godwit_program = { .resumed_at = -1, .state_fd = -1 };

static struct program *const self = &godwit_program;

EXPORT const char *godwit_why(void)
{
	return self->error.message;
}

EXPORT int godwit_resumed_at(void)
{
	return self->resumed_at;
}

static int first_error(int r)
{
	if (r < 0 && !self->vars.error.code)
		self->vars.error = self->error;
	return r;
}

EXPORT int godwit_variable(const struct godwit_field *variable)
{
	struct variables *v = &self->vars;

	if (v->n == STATE_FIELDS_MAX)
		return first_error(err_set(&self->error, -E2BIG, "more than %u variables", STATE_FIELDS_MAX));
	if (v->n == v->space) {
		size_t space = v->space ? v->space * 2 : 32;
		struct godwit_field *fields = realloc(v->fields, space * sizeof(*fields));

		if (!fields)
			return first_error(err_set(&self->error, -ENOMEM, "no memory for the variables"));
		v->fields = fields;
		v->space = space;
	}
	v->fields[v->n++] = *variable;
	return 0;
}

static int add_file(const struct file_entry *f)
{
	struct variables *v = &self->vars;
	struct file_entry *files = v->n_files < STATE_FILES_MAX ? realloc(v->files, (v->n_files + 1) * sizeof(*files)) : NULL;

	if (!files || !f->name || !f->name[0] || strlen(f->name) > NAME_MAX_BYTES)
		return first_error(err_set(&self->error, -EINVAL, "a file without a name, or more than %u files", STATE_FILES_MAX));
	v->files = files;
	v->files[v->n_files++] = *f;
	return 0;
}

EXPORT int godwit_file(const char *name, int *fd)
{
	return add_file(&(struct file_entry){ .name = name, .fd = fd });
}

EXPORT int godwit_stream(const char *name, FILE **stream)
{
	return add_file(&(struct file_entry){ .name = name, .stream = stream });
}

/* The state that the environment speaks of. */
static int find_state(struct err *e)
{
	const char *value = getenv("GODWIT_PORTABLE_STATE");
	int fd;

	if (!value)
		return 0;
	if (!strncmp(value, "fd:", 3)) {
		fd = atoi(value + 3);
		if (fcntl(fd, F_SETFD, FD_CLOEXEC) < 0)
			return err_sys(e, -errno, "the state, by descriptor %d", fd);
	} else {
		fd = open(value, O_RDONLY | O_CLOEXEC);
		if (fd < 0)
			return err_sys(e, -errno, "the state: %s", value);
	}
	unsetenv("GODWIT_PORTABLE_STATE");
	self->state_fd = fd;
	return 1;
}

EXPORT int godwit_portable_begin(int *argc, char ***argv, const char *program, unsigned version)
{
	int r;

	if (self->begun)
		return err_set(&self->error, -EALREADY, "godwit_portable_begin has been called before");
	if (!program || !program[0] || strlen(program) > NAME_MAX_BYTES)
		return err_set(&self->error, -EINVAL, "a program needs a name, of up to %u bytes", NAME_MAX_BYTES);
	self->about = (struct state_about){ .program = program, .version = version };
	r = find_state(&self->error);
	if (r < 0)
		return r;
	self->begun = true;
	self->resumes = r;
	self->argc = argc ? *argc : 0;
	self->argv = argv ? *argv : NULL;
	point_begin(program, version);
	return r;
}

static int described(void)
{
	if (!self->begun)
		return err_set(&self->error, -EINVAL, "godwit_portable_begin has not been called");
	if (self->vars.error.code)
		self->error = self->vars.error;
	return self->vars.error.code;
}

/* Maps what can be mapped, reads the rest; *ret_mapped says which. */
static void *contents(int fd, size_t *ret_len, bool *ret_mapped, struct err *e)
{
	size_t len = 0, space = 0;
	struct stat st;
	char *all = NULL;

	*ret_mapped = fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_size > 0 && lseek(fd, 0, SEEK_CUR) == 0;
	if (*ret_mapped) {
		all = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
		*ret_len = (size_t)st.st_size;
		if (all == MAP_FAILED)
			err_sys(e, -errno, "the state");
		return all == MAP_FAILED ? NULL : all;
	}
	for (;;) {
		ssize_t n;

		if (len == space) {
			char *more = realloc(all, space = space ? space * 2 : 65536);

			if (!more) {
				free(all);
				err_set(e, -ENOMEM, "no memory for the state");
				return NULL;
			}
			all = more;
		}
		n = read(fd, all + len, space - len);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0) {
			err_sys(e, -errno, "reading the state");
			free(all);
			return NULL;
		}
		if (n == 0)
			break;
		len += (size_t)n;
	}
	*ret_len = len;
	return all;
}

EXPORT int godwit_load_fd(int fd)
{
	unsigned point = 0;
	size_t len = 0;
	bool mapped;
	void *data;
	int r = described();

	if (r < 0)
		return r;
	data = contents(fd, &len, &mapped, &self->error);
	if (!data)
		return self->error.code;
	r = state_read(&self->vars, &self->about, data, len, &point, &self->error);
	if (mapped)
		munmap(data, len);
	else
		free(data);
	if (r == 0)
		self->resumed_at = (int)point;
	return r;
}

EXPORT int godwit_load(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC), r;

	if (fd < 0)
		return err_sys(&self->error, -errno, "%s", path);
	r = godwit_load_fd(fd);
	close(fd);
	return r;
}

EXPORT int godwit_save_fd(int fd)
{
	int r = described();

	return r < 0 ? r : state_write(&self->vars, &self->about, fd, NULL, &self->error);
}

/* There is either the old file or the whole new one. */
EXPORT int godwit_save(const char *path)
{
	char other[STATE_TEXT_MAX];
	int fd, r;

	if (snprintf(other, sizeof(other), "%s.new", path) >= (int)sizeof(other))
		return err_set(&self->error, -ENAMETOOLONG, "%s.new", path);
	fd = open(other, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0)
		return err_sys(&self->error, -errno, "%s", other);
	r = godwit_save_fd(fd);
	if (r == 0 && fsync(fd) < 0)
		r = err_sys(&self->error, -errno, "%s", other);
	if (close(fd) < 0 && r == 0)
		r = err_sys(&self->error, -errno, "%s", other);
	if (r == 0 && rename(other, path) < 0)
		r = err_sys(&self->error, -errno, "%s", path);
	if (r < 0)
		unlink(other);
	return r;
}

EXPORT int godwit_portable_ready(void)
{
	int r = described();

	if (r == 0 && !self->resumes) {
		struct plans plans;

		r = plans_make(&self->vars, sizeof(long), &plans, &self->error); /* wrong descriptions show at once */
		if (r == 0)
			plans_free(&plans);
		return r;
	}
	if (r == 0)
		r = godwit_load_fd(self->state_fd);
	if (self->state_fd >= 0)
		close(self->state_fd);
	self->state_fd = -1;
	r = point_arrived(r);
	return r < 0 ? r : 1;
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* checkpoint.c - the source's side of taking an image: a writer, and a migration to it; see checkpoint.h */
#include "migrate/checkpoint.h"

#include <errno.h>
#include <signal.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "base/log.h"
#include "base/util.h"
#include "migrate/image_write.h"
#include "wire/conn.h"

/* What is known of the chain. An index that cannot be used is as good as none. */
static int open_chain(struct image_writer *w, const struct image_wish *wish, struct err *e)
{
	struct err why = ERR_INIT;
	const char *worn;
	int ret;

	if (!wish->chain)
		return 0;
	ret = archive_chain_load(wish->chain, &w->chain, &why);
	worn = ret == 0 ? archive_chain_worn(w->chain, wish->directory) : why.code ? why.message : "it is the first of its chain";
	if (worn) {
		snprintf(w->whole, sizeof(w->whole), "%.100s", worn);
		archive_chain_free(w->chain);
		w->chain = NULL;
		ret = archive_chain_new(&w->chain, e);
	}
	return ret < 0 ? ret : archive_use_chain(w->archive, w->chain, wish->name, e);
}

static int listen_here(struct sockaddr_in *ret_address, struct err *e)
{
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	cleanup_close int fd = conn_listen(&address, SOMAXCONN, e);
	socklen_t len = sizeof(*ret_address);

	if (fd < 0)
		return fd;
	if (getsockname(fd, (struct sockaddr *)ret_address, &len) < 0)
		return err_sys(e, -errno, "a socket for the image");
	return take_fd(&fd);
}

/* The writer's end of the socket is the child's alone: that it is gone says that the child has ended. */
static int start_writer(struct image_writer *w, int ours, struct err *e)
{
	pid_t child = fork();

	if (child < 0)
		return err_sys(e, -errno, "fork");
	if (!child) {
		close(ours);
		image_write(w);
	}
	return (int)child;
}

/* How it has ended: the writer is told that the process is as it should be (which a writer of a process that goes on waits for). */
static int hear(int socket, bool agreed, struct image_taken *ret, struct err *e)
{
	struct image_word word;

	if (agreed)
		(void)!send(socket, "F", 1, MSG_NOSIGNAL);
	else
		shutdown(socket, SHUT_WR);
	if (recv(socket, &word, sizeof(word), 0) != (ssize_t)sizeof(word))
		return err_set(e, -EPIPE, "the process that writes the image has died");
	word.message[sizeof(word.message) - 1] = 0;
	if (word.code < 0)
		return err_set(e, word.code, "%s", word.message);
	*ret = word.taken;
	return 0;
}

/* The source's words when the destination has given up say less than the writer's, but for those that the source has. */
static int decide(const struct migrate_image *image, int moved, const struct migrate_report *report, int written, const struct err *why, struct refusals *refusals, struct err *e)
{
	if (image->keep_running && written == 0) {
		refusals_cut(refusals, 0);
		*e = ERR_INIT;
		return 0;
	}
	if (moved == 0 && written < 0)
		log_error("event=image-unheard text=\"%s\"", why->message); /* it has been committed to: the file is there */
	if (moved >= 0 || refusals->n || moved == -ECANCELED || (report->outcome && !strcmp(report->outcome, "in-doubt")))
		return moved;
	if (written < 0 && written != -ECANCELED && written != -ECONNRESET && why->code)
		*e = *why;
	return e->code ? e->code : moved;
}

int migrate_checkpoint(const struct migrate_request *request, const struct image_wish *wish, struct migrate_report *report, struct refusals *refusals, struct image_taken *ret,
		       struct err *e)
{
	struct migrate_image image = { .keep_running = wish->keep_running, .ask = request->self };
	struct image_writer w = { .wish = wish, .image = &image, .self_name = request->self_name, .link = LINK_INIT, .outcome_fd = -1 };
	struct migrate_request order = *request;
	cleanup_close int listener = -1, ours = -1, theirs = -1;
	struct err why = ERR_INIT;
	int pair[2], child, moved, written;

	if (image.ask.sin_addr.s_addr == htonl(INADDR_ANY))
		image.ask.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	if (getrandom(image.mig_id, sizeof(image.mig_id), 0) != (ssize_t)sizeof(image.mig_id))
		return err_sys(e, -errno, "random numbers");
	if (archive_create(wish->path, !wish->store, wish->key, &w.archive, e) < 0)
		return e->code;
	if (open_chain(&w, wish, e) < 0) {
		archive_discard(w.archive, false);
		archive_chain_free(w.chain);
		return e->code;
	}
	listener = w.listener = listen_here(&order.dest, e);
	if (listener < 0 || socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0) {
		if (listener >= 0)
			err_sys(e, -errno, "socketpair");
		archive_discard(w.archive, false);
		archive_chain_free(w.chain);
		return e->code;
	}
	ours = pair[0];
	theirs = w.parent = pair[1];
	child = start_writer(&w, ours, e);
	archive_forget(w.archive);
	archive_chain_free(w.chain);
	if (child < 0)
		return child;
	close_fdp(&listener);
	close_fdp(&theirs);
	order.dest_name = "image";
	order.image = &image;
	order.ask_only = false;
	moved = migrate_source(&order, report, refusals, e);
	written = hear(ours, moved == 0 || wish->keep_running, ret, &why);
	waitpid(child, NULL, 0);
	return decide(&image, moved, report, written, &why, refusals, e);
}

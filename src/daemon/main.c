// SPDX-License-Identifier: GPL-2.0-or-later
/* main.c - godwitd: options, sockets, the poll loop (godwitd(8)) */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <poll.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "base/log.h"
#include "base/service.h"
#include "base/util.h"
#include "daemon/api.h"
#include "daemon/gate.h"
#include "daemon/balance.h"
#include "daemon/cluster_loop.h"
#include "daemon/daemon.h"
#include "daemon/fence.h"
#include "daemon/keep.h"
#include "daemon/node_state.h"
#include "daemon/protect.h"
#include "daemon/tls_starter.h"
#include "home/door.h"
#include "migrate/outcome.h"
#include "migrate/pace.h"
#include "migrate/registry.h"
#include "migrate/steps.h"
#include "net/owned.h"
#include "version.h"
#include "wire/bridge.h"
#include "wire/conn.h"

#define POLL_FIXED 5 /* signals, unix listener, TCP listener, godwit-api's channel, bridges */
#define DEMAND_IDLE_NS 2000000000ull
#define DEMAND_LOOK_MS 500
#define POLL_MAX (POLL_FIXED + CLIENTS_PENDING_MAX + PEERS_PENDING_MAX)

static const char usage[] =
	"usage: godwitd [--config FILE] [--socket PATH]\n"
	"Receives live processes from other nodes, and sends them when `godwit migrate` asks for it.\n"
	"\n"
	"  --config FILE  default " CONFIG_DEFAULT_PATH ", which need not exist; see godwit.conf(5)\n"
	"  --socket PATH  where `godwit` finds this daemon; default " DAEMON_DEFAULT_SOCKET "\n"
	"  --on-demand    hears no other node but over bridges of ssh, and ends when there is nothing left to care for\n"
	"  --foreground   accepted and ignored: godwitd always stays in the foreground\n"
	"  --list-steps   prints the steps of a migration on both sides, for fault tests\n"
	"  --version, --help\n";

static void list_steps(const struct step_table *table)
{
	for (size_t i = 0; i < table->n; i++)
		printf("%s %s%s\n", table->side, table->steps[i].name, table->steps[i].committed ? " committed" : "");
}

/* /run/godwit of /run/godwit/godwitd.sock. */
static void run_directory(const struct daemon *d, char directory[PATH_MAX])
{
	char *slash;

	snprintf(directory, PATH_MAX, "%s", d->socket_path);
	slash = strrchr(directory, '/');
	if (slash)
		*slash = 0;
	else
		strcpy(directory, ".");
}

/* The lock is what tells a living godwitd from a socket file that a dead one left. */
static int take_lock(struct daemon *d, struct err *e)
{
	char path[PATH_MAX + 8];

	snprintf(path, sizeof(path), "%s.lock", d->socket_path);
	d->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (d->lock_fd < 0)
		return err_sys(e, -errno, "%s", path);
	if (!flock(d->lock_fd, LOCK_EX | LOCK_NB))
		return 0;
	if (errno != EWOULDBLOCK)
		return err_sys(e, -errno, "%s: flock", path);
	return err_set(e, -EBUSY, "another godwitd runs with the socket %s: stop it, or start this one with another --socket and port",
		       d->socket_path);
}

static int open_unix(struct daemon *d, struct err *e)
{
	struct sockaddr_un address;

	if (strlen(d->socket_path) >= sizeof(address.sun_path))
		return err_set(e, -ENAMETOOLONG, "%s: a socket's path has at most %zu bytes", d->socket_path, sizeof(address.sun_path) - 1);
	d->unix_fd = service_take_listener(&d->service, d->socket_path);
	d->unix_is_passed = d->unix_fd >= 0;
	if (!d->unix_is_passed)
		d->unix_fd = conn_listen_unix(d->socket_path, 0111, 16, e); /* whoever connects is asked who he is: access.h */
	return MIN(d->unix_fd, 0);
}

static int open_bridges(struct daemon *d, const char *directory, struct err *e)
{
	char path[BRIDGE_PATH_MAX];

	snprintf(path, sizeof(path), "%.60s/bridges", directory);
	if (mkdir(path, 0700) < 0 && errno != EEXIST)
		return err_sys(e, -errno, "%s: mkdir", path);
	bridge_use_directory(path);
	bridge_entrance(path);
	d->bridge_fd = conn_listen_unix(path, 0177, 1024, e);
	return MIN(d->bridge_fd, 0);
}

static int open_network(struct daemon *d, struct err *e)
{
	d->tcp_fd = conn_listen(&d->config.listen, 1024, e);
	if (d->tcp_fd == -EADDRINUSE)
		err_wrap(e, "another program has the port; end it or set `port` in [node] of the configuration");
	if (d->tcp_fd < 0)
		return d->tcp_fd;
	d->udp_fd = cluster_open_udp(&d->config, e);
	return MIN(d->udp_fd, 0);
}

static int open_directories(struct daemon *d, const char *directory, struct err *e)
{
	char addresses[PATH_MAX + 16], units[PATH_MAX + 8], outcomes[PATH_MAX + 16], doors[PATH_MAX + 8];
	int r;

	if (mkdir(directory, 0755) < 0 && errno != EEXIST)
		return err_sys(e, -errno, "%s: mkdir", directory);
	snprintf(units, sizeof(units), "%s/units", directory);
	registry_use_directory(units);
	snprintf(outcomes, sizeof(outcomes), "%s/outcomes", directory);
	outcome_use_directory(outcomes);
	snprintf(doors, sizeof(doors), "%s/home", directory);
	door_use_directory(doors);
	snprintf(addresses, sizeof(addresses), "%s/addresses", directory);
	owned_use_directory(addresses);
	if (keep_init(directory, d->config.name, e) < 0 || protect_init(directory, e) < 0 || fence_init(directory, d->config.etcd.n_servers > 0, e) < 0)
		return e->code;
	outcome_clean();
	r = take_lock(d, e);
	if (r < 0)
		return r;
	conn_set_dead_peer((int)d->config.peer_timeout_ms);
	return 0;
}

static int open_sockets(struct daemon *d, struct err *e)
{
	char directory[PATH_MAX];

	run_directory(d, directory);
	if (open_directories(d, directory, e) < 0 || (!d->on_demand && open_network(d, e) < 0))
		return e->code;
	if (d->config.tls.ca[0] && tls_starter_open(d, directory, e) < 0)
		return e->code;
	if (d->config.api && api_open(d, directory, e) < 0)
		return e->code;
	if (d->config.api_listen.sin_port && gate_open(d, e) < 0)
		return e->code;
	return open_bridges(d, directory, e) < 0 ? e->code : open_unix(d, e);
}

static int open_signals(struct daemon *d, struct err *e)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGCHLD);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP); /* of the terminal that it was started from, or of a process group that became an orphan */
	sigprocmask(SIG_BLOCK, &set, NULL);
	signal(SIGPIPE, SIG_IGN);
	d->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (d->signal_fd < 0)
		return err_sys(e, -errno, "signalfd");
	/* processes that arrived here become this process's children when their worker ends */
	if (prctl(PR_SET_CHILD_SUBREAPER, 1) < 0)
		return err_sys(e, -errno, "PR_SET_CHILD_SUBREAPER");
	return 0;
}

/* Gives everything away first, where the configuration says so. false: it stops now. */
static bool leave(struct daemon *d)
{
	bool child;

	if (!d->config.drain_at_stop || d->leaving)
		return false;
	node_state_set_leaving(d->shared, true);
	d->leaving = worker_start(d, WORKER_LEAVE, NULL, 0, &child, NULL);
	if (child)
		_exit(do_leave(d));
	return d->leaving;
}

static void on_signal(struct daemon *d)
{
	struct signalfd_siginfo info;

	while (read(d->signal_fd, &info, sizeof(info)) == sizeof(info)) {
		if (info.ssi_signo == SIGCHLD)
			continue;
		if (info.ssi_signo == SIGHUP) {
			log_info("event=hangup-ignored from=%u", info.ssi_pid);
			continue;
		}
		log_info("event=stopping signal=%u", info.ssi_signo);
		d->stopping = info.ssi_signo != SIGTERM || !leave(d);
		service_tell(&d->service, d->stopping ? "STOPPING=1" : "STOPPING=1\nSTATUS=Units are moved to other nodes");
	}
	worker_reap(d);
}

/* Drops who took too long; returns the time until the next one does, -1 when nobody is pending. */
static int expire(struct daemon *d)
{
	uint64_t now = clock_ns(CLOCK_MONOTONIC), next = UINT64_MAX;
	size_t i;

	for (i = 0; i < CLIENTS_PENDING_MAX; i++) {
		if (d->clients[i].waits)
			continue;
		if (d->clients[i].fd >= 0 && d->clients[i].deadline_ns <= now) {
			log_warning("event=client-silent");
			client_drop(&d->clients[i]);
		} else if (d->clients[i].fd >= 0) {
			next = MIN(next, d->clients[i].deadline_ns);
		}
	}
	for (i = 0; i < PEERS_PENDING_MAX; i++) {
		if (d->peers[i].fd >= 0 && d->peers[i].deadline_ns <= now) {
			log_warning("event=peer-silent peer=%s", d->peers[i].address);
			peer_drop(&d->peers[i]);
		} else if (d->peers[i].fd >= 0) {
			next = MIN(next, d->peers[i].deadline_ns);
		}
	}
	return next == UINT64_MAX ? -1 : (int)((next - now + 999999) / 1000000);
}

/* Of two times in ms, where -1 is never. */
static int sooner(int a, int b)
{
	return a < 0 || (b >= 0 && b < a) ? b : a;
}

/* A file of that name is left behind by who is killed. */
static int count_door(const char *name, void *arg)
{
	cleanup_close int door = door_connect(name, NULL);

	*(unsigned *)arg += door >= 0;
	return 0;
}

static int count_unit(const struct registry_entry *entry, void *arg)
{
	(void)entry;
	++*(unsigned *)arg;
	return 0;
}

/* With --on-demand: the end, when no bridge, no request, no move and no unit has been here for a moment. */
static int demand_tick(struct daemon *d)
{
	uint64_t now = clock_ns(CLOCK_MONOTONIC);
	unsigned n = worker_count(d, WORKER_REQUEST) + worker_count(d, WORKER_SOURCE) + worker_count(d, WORKER_DEST);

	if (!d->on_demand)
		return -1;
	for (size_t i = 0; i < CLIENTS_PENDING_MAX; i++)
		n += d->clients[i].fd >= 0;
	if (!n) {
		door_list("", count_door, &n);
		registry_list(count_unit, &n, NULL);
	}
	if (n || !d->idle_since_ns)
		d->idle_since_ns = now;
	d->stopping = d->stopping || now - d->idle_since_ns >= DEMAND_IDLE_NS;
	return DEMAND_LOOK_MS;
}

static int tell_service(struct daemon *d)
{
	return service_tick(&d->service);
}

static int loop_once(struct daemon *d)
{
	/* What is due; each says in how many ms it wants to be asked again, -1 never. */
	static int (*const ticks[])(struct daemon *) = { expire, net_tick, tls_starter_tick, api_tick, gate_tick, cluster_tick, balance_tick, clients_tick, protect_tick, fence_tick, demand_tick, tell_service };
	struct pollfd p[POLL_MAX];
	int timeout_ms = -1;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(ticks); i++)
		timeout_ms = sooner(timeout_ms, ticks[i](d));
	p[0] = (struct pollfd){ .fd = d->signal_fd, .events = POLLIN };
	p[1] = (struct pollfd){ .fd = d->unix_fd, .events = POLLIN };
	p[2] = (struct pollfd){ .fd = d->tcp_fd, .events = POLLIN };
	p[3] = (struct pollfd){ .fd = d->api_channel, .events = POLLIN };
	p[4] = (struct pollfd){ .fd = d->bridge_fd, .events = POLLIN };
	for (i = 0; i < CLIENTS_PENDING_MAX; i++)
		p[POLL_FIXED + i] = (struct pollfd){ .fd = d->clients[i].fd, .events = POLLIN };
	for (i = 0; i < PEERS_PENDING_MAX; i++)
		p[POLL_FIXED + CLIENTS_PENDING_MAX + i] = (struct pollfd){ .fd = d->peers[i].fd, .events = POLLIN };
	if (poll(p, POLL_MAX, timeout_ms) < 0)
		return errno == EINTR ? 0 : -errno;
	if (p[0].revents)
		on_signal(d);
	for (i = 0; i < CLIENTS_PENDING_MAX; i++)
		if (p[POLL_FIXED + i].revents)
			client_input(d, &d->clients[i]);
	for (i = 0; i < PEERS_PENDING_MAX; i++)
		if (p[POLL_FIXED + CLIENTS_PENDING_MAX + i].revents)
			peer_input(d, &d->peers[i]);
	if (p[1].revents)
		client_accept(d);
	if (p[2].revents)
		peer_accept(d);
	if (p[3].revents)
		api_input(d);
	if (p[4].revents)
		peer_accept_bridged(d);
	return 0;
}

static int run(struct daemon *d, struct err *e)
{
	char address[CONN_ADDRESS_TEXT];
	int r = geteuid() == 0 ? worker_init(d, e) : err_set(e, -EPERM, "godwitd traces and makes processes: start it as root");

	if (r >= 0)
		r = open_signals(d, e);
	if (r < 0)
		return r;
	/* Who is to empty an overloaded host must not wait for its programs. Workers choose for themselves (migrate/pace.h); where this is not allowed it goes without. */
	(void)setpriority(PRIO_PROCESS, 0, PACE_HURRY_NICE);
	r = open_sockets(d, e);
	if (r < 0)
		return r;
	conn_address_text(&d->config.listen, address);
	log_info("event=ready node=%s listen=%s socket=%s nodes=%zu version=" GODWIT_VERSION, d->config.name, address, d->socket_path,
		 d->config.n_nodes);
	net_prepare(d);
	service_tell(&d->service, "READY=1\nSTATUS=Ready");
	while (!d->stopping && r >= 0)
		r = loop_once(d);
	if (r < 0)
		return err_sys(e, r, "poll");
	if (!d->unix_is_passed)
		unlink(d->socket_path);
	return 0;
}

/* Returns the exit status when the program shall end now, -1 otherwise. */
static int read_options(int argc, char **argv, struct daemon *d, struct err *e)
{
	static const struct option options[] = {
		{ "config", required_argument, NULL, 'c' }, { "socket", required_argument, NULL, 's' }, { "foreground", no_argument, NULL, 'f' },
		{ "version", no_argument, NULL, 'V' },      { "help", no_argument, NULL, 'h' },
		{ "list-steps", no_argument, NULL, 'l' },   { "on-demand", no_argument, NULL, 'd' },
		{ 0 },
	};
	const char *path = NULL;
	int o;

	while ((o = getopt_long(argc, argv, "c:s:fVh", options, NULL)) != -1) {
		switch (o) {
		case 'c':
			path = optarg;
			break;
		case 's':
			snprintf(d->socket_path, sizeof(d->socket_path), "%s", optarg);
			break;
		case 'f':
			break;
		case 'd':
			d->on_demand = true;
			break;
		case 'V':
			puts("godwitd " GODWIT_VERSION);
			return 0;
		case 'h':
			fputs(usage, stdout);
			return 0;
		case 'l':
			list_steps(&source_steps);
			list_steps(&dest_steps);
			return 0;
		default:
			fputs(usage, stderr);
			return 2;
		}
	}
	if (optind < argc) {
		fprintf(stderr, "godwitd: '%s': no argument is expected\n%s", argv[optind], usage);
		return 2;
	}
	if (config_load(&d->config, path ? path : CONFIG_DEFAULT_PATH, path != NULL, e) < 0) {
		fprintf(stderr, "godwitd: %s\n", e->message);
		return 1;
	}
	hello_use_arch(d->config.arch);
	return -1;
}

/* It was copied here by ssh (godwit bridge --bootstrap), and leaves nothing behind. */
static void bootstrap_remove(void)
{
	const char *directory = getenv("GODWIT_BOOTSTRAP");

	if (!directory || strncmp(directory, "/var/tmp/godwit-bootstrap-", 26) != 0 || strchr(directory + 9, '/'))
		return;
	unsetenv("LD_LIBRARY_PATH");
	execl("/bin/rm", "rm", "-rf", "--", directory, (char *)NULL);
}

int main(int argc, char **argv)
{
	static struct daemon d = { .socket_path = DAEMON_DEFAULT_SOCKET, .lock_fd = -1, .unix_fd = -1, .tcp_fd = -1, .signal_fd = -1, .udp_fd = -1, .bridge_fd = -1, .tls_fd = -1, .api_fd = -1, .api_channel = -1, .gate_fd = -1, .redirects = true, .service = SERVICE_INIT };
	struct err e = ERR_INIT;
	size_t i;
	int status;

	if (argc == TLS_STARTER_ARGUMENTS && !strcmp(argv[1], TLS_STARTER_OPTION))
		return tls_starter_main(argv);
	config_init(&d.config);
	for (i = 0; i < CLIENTS_PENDING_MAX; i++)
		d.clients[i].fd = -1;
	for (i = 0; i < PEERS_PENDING_MAX; i++)
		d.peers[i].fd = -1;
	status = read_options(argc, argv, &d, &e);
	if (status >= 0)
		return status;
	service_begin(&d.service);
	d.started_ns = clock_ns(CLOCK_BOOTTIME);
	if (run(&d, &e) < 0) {
		log_error("event=failed error=\"%s\"", e.message);
		return 1;
	}
	config_free(&d.config);
	if (d.on_demand)
		bootstrap_remove();
	return 0;
}

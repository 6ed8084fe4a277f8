// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * travel.c - a program whose state has something of every kind, for tests of libgodwit-portable on several architectures
 *
 * usage: travel STEPS LOG [STOP FILE]; TRAVEL_PACE_US in its environment is a pause behind each step, for who moves it while it runs
 *
 * It computes STEPS steps, writes a line to LOG every hundred, and prints a digest of all that it has. With STOP it ends at that step with
 * its state in FILE, from which a travel of any architecture goes on (GODWIT_PORTABLE_STATE). The digest must not depend on who has computed which steps.
 */
#include <err.h>
#include <fcntl.h>
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <godwit-portable.h>

struct sample {
	char tag;
	int16_t bin;
	double value;
	float small;
};
struct node {
	int8_t weight;
	uint64_t key;
	struct sample samples[3];
	struct node *next, *best, *links[4];
	double *watched; /* somewhere in the grid, or in a node */
	char *name;
	uint8_t n;
	long *history;
	bool marked;
	unsigned long size;
	long double sum;
	enum { ROUGH, SMOOTH } kind;
};

GODWIT_TYPE(sample, struct sample, GODWIT_FIELD(struct sample, tag), GODWIT_FIELD(struct sample, bin), GODWIT_FIELD(struct sample, value),
	    GODWIT_FIELD(struct sample, small));
GODWIT_TYPE(node, struct node, GODWIT_FIELD(struct node, weight), GODWIT_FIELD(struct node, key),
	    GODWIT_FIELD_STRUCT(struct node, samples, struct sample, sample), GODWIT_FIELD_POINTER(struct node, next, node),
	    GODWIT_FIELD_POINTER(struct node, best, node), GODWIT_FIELD_POINTER(struct node, links, node), GODWIT_FIELD_POINTER_TO_NUMBER(struct node, watched),
	    GODWIT_FIELD_STRING(struct node, name), GODWIT_FIELD(struct node, n), GODWIT_FIELD_COUNTED(struct node, history, n),
	    GODWIT_FIELD(struct node, marked), GODWIT_FIELD(struct node, size), GODWIT_FIELD(struct node, sum), GODWIT_FIELD(struct node, kind));

#define GRID 40

static double grid[GRID][GRID];
static struct node *ring, **table, *here;
static uint32_t n_table;
static uint64_t seed = 1;
static int log_fd = -1;

static uint32_t dice(uint32_t n)
{
	seed = seed * 6364136223846793005ull + 1442695040888963407ull;
	return (uint32_t)(seed >> 33) % n;
}

static struct node *make(void)
{
	struct node *n = calloc(1, sizeof(*n));

	if (!n)
		err(1, "calloc");
	n->key = ((uint64_t)dice(1 << 30) << 32) + dice(1 << 30);
	n->name = malloc(24);
	snprintf(n->name, 24, "n%u", (unsigned)n_table);
	n->n = 4;
	n->history = calloc(n->n, sizeof(*n->history));
	n->watched = &grid[dice(GRID)][dice(GRID)];
	n->next = ring ? ring->next : n;
	if (ring)
		ring->next = n;
	ring = n;
	table = realloc(table, (n_table + 1) * sizeof(struct node *));
	table[n_table++] = n;
	return n;
}

static void begin(const char *log)
{
	log_fd = open(log, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND, 0644);
	if (log_fd < 0)
		err(1, "%s", log);
	for (int i = 0; i < 30; i++)
		make();
	here = ring;
	for (int y = 0; y < GRID; y++)
		for (int x = 0; x < GRID; x++)
			grid[y][x] = (x * 7 + y * 3) % 11 / 11.0;
}

static void smooth(void)
{
	for (int y = 1; y < GRID - 1; y++)
		for (int x = 1; x < GRID - 1; x++)
			grid[y][x] += (grid[y - 1][x] + grid[y + 1][x] + grid[y][x - 1] + grid[y][x + 1] - 4 * grid[y][x]) * 0.2;
}

static void step(long number)
{
	struct node *n = table[dice(n_table)], *other = table[dice(n_table)];
	struct sample *s = &n->samples[dice(3)];

	here = here->next;
	here->links[dice(4)] = n;
	here->best = other;
	s->value += sqrt(*here->watched + number / 3.0);
	s->small = (float)s->value * 0.5f;
	s->bin = (int16_t)(s->bin * 31 + number);
	s->tag = (char)('a' + dice(26));
	n->weight = (int8_t)(n->weight * 5 + 3);
	n->history[dice(n->n)] -= number;
	n->watched = dice(2) ? &other->samples[dice(3)].value : &grid[dice(GRID)][dice(GRID)];
	n->marked = dice(2);
	n->size += dice(1000);
	n->sum = (double)(n->sum + s->value);
	n->kind = dice(2) ? ROUGH : SMOOTH;
	if (dice(20) == 0)
		make();
	if (dice(50) == 0) {
		free(n->history);
		n->n = (uint8_t)(1 + dice(100));
		n->history = calloc(n->n, sizeof(*n->history));
	}
	smooth();
	if (number % 100 == 0)
		dprintf(log_fd, "step %ld\n", number);
}

static uint64_t sum;

static void add(uint64_t x)
{
	sum = (sum ^ x) * 0x100000001b3ull;
	sum ^= sum >> 31;
}

static void add_double(double d)
{
	uint64_t x;

	memcpy(&x, &d, sizeof(x));
	add(x);
}

static void add_node(const struct node *n)
{
	add(n->key);
	add((uint64_t)n->weight);
	for (int i = 0; i < 3; i++) {
		add((uint64_t)n->samples[i].bin + (uint64_t)n->samples[i].tag);
		add_double(n->samples[i].value);
		add_double(n->samples[i].small);
	}
	for (int i = 0; i < n->n; i++)
		add((uint64_t)n->history[i]);
	for (int i = 0; i < 4; i++)
		add(n->links[i] ? n->links[i]->key : 0);
	add(n->best ? n->best->key : 0);
	add_double(*n->watched);
	add(n->marked + n->size);
	add_double((double)n->sum);
	add(n->kind);
	for (const char *c = n->name; *c; c++)
		add((uint64_t)*c);
}

int main(int argc, char **argv)
{
	const char *pace = getenv("TRAVEL_PACE_US");
	long steps, stop, i = 0;
	int r = godwit_portable_begin(&argc, &argv, "travel", 1);

	if (argc != 3 && argc != 5)
		errx(2, "usage: travel STEPS LOG [STOP FILE]");
	steps = atol(argv[1]);
	stop = argc == 5 ? atol(argv[3]) : -1;
	GODWIT_VAR(i);
	GODWIT_VAR_GRID(grid);
	GODWIT_VAR_POINTER(ring, node);
	GODWIT_VAR_POINTER(here, node);
	GODWIT_VAR_COUNTED_POINTERS(table, n_table, node);
	GODWIT_VAR(n_table);
	GODWIT_VAR(seed);
	godwit_file("log", &log_fd);
	if (r >= 0)
		r = godwit_portable_ready();
	if (r < 0)
		errx(1, "%s", godwit_why());
	if (r == 0)
		begin(argv[2]);
	for (; i < steps; i++) { /* the point is at the beginning of a step, which the state has as the next one */
		if (godwit_point() < 0)
			warnx("stays: %s", godwit_why());
		if (i == stop) {
			if (godwit_save(argv[4]) < 0)
				errx(1, "%s", godwit_why());
			return 0;
		}
		step(i);
		if (pace)
			usleep((useconds_t)atol(pace));
	}
	for (uint32_t k = 0; k < n_table; k++)
		add_node(table[k]);
	for (int y = 0; y < GRID; y++)
		for (int x = 0; x < GRID; x++)
			add_double(grid[y][x]);
	add(here->key);
	printf("%016llx\n", (unsigned long long)sum);
	return 0;
}

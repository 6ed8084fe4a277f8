// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * require.c - parsing and evaluating resource requirement strings; see require.h
 *
 * Recursive descent, one function a level of precedence, into a postfix program. Texts occur only as `name == text`, so that every value on the stack is a number.
 */
#include "cluster/require.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <string.h>

#include "base/util.h"

struct parser {
	struct require *r;
	const char *begin, *at;
	unsigned depth;
	struct err *e;
};

static int parse_or(struct parser *p);

static int fail(struct parser *p, const char *what)
{
	return err_set(p->e, -EINVAL, "requirement: column %zu: %s", (size_t)(p->at - p->begin) + 1, what);
}

static void skip_blanks(struct parser *p)
{
	while (isspace((unsigned char)*p->at))
		p->at++;
}

static bool accept(struct parser *p, const char *token)
{
	size_t len = strlen(token);

	skip_blanks(p);
	if (strncmp(p->at, token, len))
		return false;
	p->at += len;
	return true;
}

static bool is_word(char c)
{
	return isalnum((unsigned char)c) || c == '_' || c == '.' || c == '-';
}

/* A name begins with a letter and has no '-' in it, or "mem-tmp" would be one. */
static size_t name_length(const char *s)
{
	size_t n = 0;

	if (!isalpha((unsigned char)*s) && *s != '_')
		return 0;
	while (isalnum((unsigned char)s[n]) || s[n] == '_' || s[n] == '.')
		n++;
	return n;
}

static int emit(struct parser *p, struct require_step step)
{
	if (p->r->n_steps >= REQUIRE_STEPS_MAX)
		return fail(p, "the expression is too long");
	p->r->steps[p->r->n_steps++] = step;
	return 0;
}

static uint16_t keep(struct parser *p, const char *s, size_t len)
{
	size_t at = p->r->text_len;

	memcpy(p->r->text + at, s, len); /* all together not longer than the string that is parsed, and a 0 for each name */
	p->r->text[at + len] = 0;
	p->r->text_len += len + 1;
	return (uint16_t)at;
}

static int parse_number(struct parser *p, double *ret)
{
	static const char units[] = "KMGT";
	char *end;
	double v = strtod(p->at, &end);
	const char *unit;

	if (end == p->at || !isdigit((unsigned char)*p->at) || !isfinite(v))
		return fail(p, "a number was expected");
	p->at = end;
	unit = *p->at ? strchr(units, toupper((unsigned char)*p->at)) : NULL;
	if (unit && !is_word(p->at[1])) {
		v *= pow(1024, (double)(unit - units) - 1);
		p->at++;
	}
	*ret = v;
	return is_word(*p->at) && *p->at != '-' ? fail(p, "what stands behind this number is no unit (K, M, G, T)") : 0;
}

/* `name == text` and `label == text`, where text is neither a number nor an index. */
static int parse_text_is(struct parser *p, uint16_t name, bool is_not)
{
	size_t len = 0;
	struct require_step is = { .op = REQUIRE_TEXT_IS, .name = name };
	int ret;

	skip_blanks(p);
	while (is_word(p->at[len]))
		len++;
	if (!len)
		return fail(p, "a text was expected (letters, digits, '.', '_', '-')");
	is.value = keep(p, p->at, len);
	p->at += len;
	ret = emit(p, is);
	return ret == 0 && is_not ? emit(p, (struct require_step){ .op = REQUIRE_NOT }) : ret;
}

static int parse_name(struct parser *p, size_t len)
{
	const char *name = p->at;
	int index = load_find(name, len);
	bool is_node = (len == 4 && !memcmp(name, "name", 4)) || (len == 5 && !memcmp(name, "hname", 5));
	uint16_t kept = 0;

	p->at += len;
	if (index >= 0)
		return emit(p, (struct require_step){ .op = REQUIRE_INDEX, .index = (uint8_t)index });
	if (!is_node)
		kept = keep(p, name, len);
	if (accept(p, "=="))
		return parse_text_is(p, kept, false);
	if (accept(p, "!="))
		return parse_text_is(p, kept, true);
	return is_node ? fail(p, "'==' or '!=' and a node's name were expected") : emit(p, (struct require_step){ .op = REQUIRE_LABEL, .name = kept });
}

static int parse_unary(struct parser *p);

static int parse_inside(struct parser *p)
{
	int ret;

	if (accept(p, "(")) {
		ret = parse_or(p);
		return ret < 0 || accept(p, ")") ? ret : fail(p, "')' was expected");
	}
	if (!strncmp(p->at, "!=", 2))
		return fail(p, "a value was expected before '!='");
	if (accept(p, "!")) {
		ret = parse_unary(p);
		return ret < 0 ? ret : emit(p, (struct require_step){ .op = REQUIRE_NOT });
	}
	if (accept(p, "-")) {
		ret = parse_unary(p);
		return ret < 0 ? ret : emit(p, (struct require_step){ .op = REQUIRE_MINUS });
	}
	return fail(p, *p->at ? "a number, an index or a label was expected" : "the string ends too early");
}

static int parse_unary(struct parser *p)
{
	struct require_step number = { .op = REQUIRE_NUMBER };
	size_t len;
	int ret;

	skip_blanks(p);
	len = name_length(p->at);
	if (len)
		return parse_name(p, len);
	if (isdigit((unsigned char)*p->at)) {
		ret = parse_number(p, &number.number);
		return ret < 0 ? ret : emit(p, number);
	}
	if (++p->depth > REQUIRE_DEPTH_MAX)
		return fail(p, "too many parentheses or signs");
	ret = parse_inside(p);
	p->depth--;
	return ret;
}

/* Levels of precedence, the loosest first; in each the longer token before the one it begins with. */
static const struct {
	struct {
		const char *token;
		uint8_t op;
	} ops[6];
	size_t n;
} levels[] = {
	{ { { "||", REQUIRE_OR } }, 1 },
	{ { { "&&", REQUIRE_AND } }, 1 },
	{ { { "==", REQUIRE_EQ }, { "!=", REQUIRE_NE }, { "<=", REQUIRE_LE }, { ">=", REQUIRE_GE }, { "<", REQUIRE_LT }, { ">", REQUIRE_GT } }, 6 },
	{ { { "+", REQUIRE_ADD }, { "-", REQUIRE_SUB } }, 2 },
	{ { { "*", REQUIRE_MUL }, { "/", REQUIRE_DIV } }, 2 },
};

static int accept_op(struct parser *p, size_t level)
{
	for (size_t i = 0; i < levels[level].n; i++)
		if (accept(p, levels[level].ops[i].token))
			return levels[level].ops[i].op;
	return -1;
}

static int parse_level(struct parser *p, size_t level)
{
	int ret = level == ARRAY_SIZE(levels) ? parse_unary(p) : parse_level(p, level + 1), op;

	while (ret == 0 && level < ARRAY_SIZE(levels) && (op = accept_op(p, level)) >= 0) {
		ret = parse_level(p, level + 1);
		if (ret == 0)
			ret = emit(p, (struct require_step){ .op = (uint8_t)op });
	}
	return ret;
}

static int parse_or(struct parser *p)
{
	return parse_level(p, 0);
}

static int parse_index(struct parser *p, uint8_t *ret)
{
	size_t len;
	int index;

	skip_blanks(p);
	len = name_length(p->at);
	index = load_find(p->at, len);
	if (index < 0)
		return fail(p, "an index was expected (r15s, r1m, r15m, ut, pg, io, ls, it, tmp, swp, mem, cores, speed, maxmem, psicpu, psimem, psiio)");
	p->at += len;
	*ret = (uint8_t)index;
	return 0;
}

static int parse_order(struct parser *p)
{
	int ret;

	do {
		bool reverse = accept(p, "-");
		uint8_t index = 0;

		if (p->r->n_order >= REQUIRE_ORDER_MAX)
			return fail(p, "too many indices to sort by");
		ret = parse_index(p, &index);
		if (ret < 0)
			return ret;
		p->r->order[p->r->n_order].index = index;
		p->r->order[p->r->n_order++].reverse = reverse;
	} while (accept(p, ":"));
	return 0;
}

static int parse_usage(struct parser *p)
{
	int ret;

	do {
		uint8_t index = 0;

		ret = parse_index(p, &index);
		if (ret == 0 && !accept(p, "="))
			ret = fail(p, "'=' and an amount were expected");
		skip_blanks(p);
		if (ret == 0)
			ret = parse_number(p, &p->r->usage[index]);
		if (ret < 0)
			return ret;
	} while (accept(p, ":") || accept(p, ","));
	return 0;
}

static int parse_sections(struct parser *p)
{
	static const struct {
		const char *word;
		int (*parse)(struct parser *p);
	} sections[] = { { "select[", parse_or }, { "order[", parse_order }, { "rusage[", parse_usage } };
	unsigned seen = 0;
	size_t i;
	int ret;

	for (skip_blanks(p); *p->at; skip_blanks(p)) {
		for (i = 0; i < ARRAY_SIZE(sections) && !accept(p, sections[i].word); i++)
			;
		if (i == ARRAY_SIZE(sections))
			return fail(p, "a section was expected: select[...], order[...] or rusage[...]");
		if (seen & 1u << i)
			return fail(p, "this section is there twice");
		seen |= 1u << i;
		if (accept(p, "]"))
			continue;
		ret = sections[i].parse(p);
		if (ret < 0)
			return ret;
		if (!accept(p, "]"))
			return fail(p, "']' was expected");
	}
	return 0;
}

int require_parse(struct require *ret, const char *text, struct err *e)
{
	struct parser p = { .r = ret, .begin = text, .at = text, .e = e };
	int r;

	*ret = (struct require){ .text_len = 1 };
	if (strlen(text) > REQUIRE_TEXT_MAX)
		return err_set(e, -EINVAL, "requirement: longer than %d bytes", REQUIRE_TEXT_MAX);
	skip_blanks(&p);
	if (!*p.at || strchr(text, '['))
		return parse_sections(&p);
	r = parse_or(&p);
	skip_blanks(&p);
	return r == 0 && *p.at ? fail(&p, "this does not belong to the expression") : r;
}

/* --- evaluation --- */

const char *require_label(const char *labels, const char *name, size_t *ret_len)
{
	size_t len = strlen(name);

	for (const char *p = labels; p && *p;) {
		size_t n = strcspn(p, " ");

		if (n >= len && !memcmp(p, name, len) && (n == len || p[len] == '=')) {
			*ret_len = n == len ? 0 : n - len - 1;
			return n == len ? p + n : p + len + 1;
		}
		p += n;
		p += strspn(p, " ");
	}
	return NULL;
}

static double text_is(const struct require *r, const struct require_step *step, const struct require_node *node)
{
	const char *value = r->text + step->value, *is = node->name;
	size_t len = is ? strlen(is) : 0;

	if (step->name)
		is = require_label(node->labels, r->text + step->name, &len);
	return is && strlen(value) == len && !memcmp(is, value, len);
}

static double value_of(const struct require *r, const struct require_step *step, const struct require_node *node)
{
	size_t len;

	switch (step->op) {
	case REQUIRE_INDEX:
		return node->load->v[step->index];
	case REQUIRE_LABEL:
		return require_label(node->labels, r->text + step->name, &len) != NULL;
	case REQUIRE_TEXT_IS:
		return text_is(r, step, node);
	default:
		return step->number;
	}
}

static bool holds(double v)
{
	return v != 0 && !isnan(v);
}

static double combine(uint8_t op, double a, double b)
{
	if (op == REQUIRE_OR)
		return holds(a) || holds(b);
	if (op == REQUIRE_AND)
		return holds(a) && holds(b);
	if (isnan(a) || isnan(b))
		return NAN;
	switch (op) {
	case REQUIRE_EQ:
		return a == b;
	case REQUIRE_NE:
		return a != b;
	case REQUIRE_LT:
		return a < b;
	case REQUIRE_LE:
		return a <= b;
	case REQUIRE_GT:
		return a > b;
	case REQUIRE_GE:
		return a >= b;
	case REQUIRE_ADD:
		return a + b;
	case REQUIRE_SUB:
		return a - b;
	case REQUIRE_MUL:
		return a * b;
	default:
		return b == 0 ? NAN : a / b;
	}
}

static bool select_matches(const struct require *r, const struct require_node *node)
{
	double stack[REQUIRE_STEPS_MAX] = { 0 };
	size_t n = 0;

	for (size_t i = 0; i < r->n_steps; i++) {
		const struct require_step *step = &r->steps[i];

		if (step->op <= REQUIRE_TEXT_IS) {
			stack[n++] = value_of(r, step, node);
		} else if (step->op == REQUIRE_NOT) {
			stack[n - 1] = isnan(stack[n - 1]) ? NAN : stack[n - 1] == 0;
		} else if (step->op == REQUIRE_MINUS) {
			stack[n - 1] = -stack[n - 1];
		} else {
			n--;
			stack[n - 1] = combine(step->op, stack[n - 1], stack[n]);
		}
	}
	return n == 0 || holds(stack[0]);
}

bool require_match(const struct require *r, const struct require_node *node)
{
	for (int i = 0; i < LOAD_INDICES; i++)
		if (r->usage[i] > 0 && load_is_better_high((enum load_index)i) && node->load->v[i] < r->usage[i])
			return false;
	return select_matches(r, node);
}

int require_compare(const struct require *r, const struct load *a, const struct load *b)
{
	static const uint8_t normal[] = { LOAD_R15S, LOAD_PG };
	size_t n = r->n_order ? r->n_order : ARRAY_SIZE(normal);

	for (size_t i = 0; i < n; i++) {
		uint8_t index = r->n_order ? r->order[i].index : normal[i];
		bool high = load_is_better_high((enum load_index)index) != (r->n_order && r->order[i].reverse);

		if (a->v[index] != b->v[index])
			return (a->v[index] < b->v[index]) == high ? 1 : -1;
	}
	return 0;
}

void require_reserve(const struct require *r, struct load *load)
{
	for (int i = 0; i < LOAD_INDICES; i++) {
		if (!load_is_better_high((enum load_index)i))
			load->v[i] += r->usage[i];
		else
			load->v[i] = MAX(load->v[i] - r->usage[i], 0);
	}
}

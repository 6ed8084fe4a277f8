#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""completions.py GODWIT SHELL: writes what completes godwit's command line in bash, zsh or fish, from what `godwit help` says, which is never out of date."""

import re
import subprocess
import sys


def said(godwit, *arguments):
    return subprocess.run([godwit, *arguments], check=True, capture_output=True, text=True).stdout


def verbs(godwit):
    """(verb, what it takes, what it does), in the order of the overview."""
    text = said(godwit, "help").split("\n\n")[1]
    return [match.groups() for match in re.finditer(r"^  (\S+) +(?:(\S.*?|)  +)?(\S.*)$", text, re.M)]


def options(godwit, verb):
    """(option, name of its value or None, what it says)."""
    text = "" if verb == "help" else said(godwit, "help", verb)
    return [match.groups() for match in re.finditer(r"^ +(--?[\w-]+)(?: ([A-Z]\w*))? +(\S.*)$", text, re.M)]


def words(godwit, verb, arguments):
    """Of "on|off|status [NODE...]" on, off, status; of "ACTION" those that its help begins lines with."""
    first = arguments.split(" ")[0] if arguments else ""
    if first == "ACTION":
        return re.findall(r"^  ([a-z]+) ", said(godwit, "help", verb), re.M)
    return re.findall(r"[a-z]+", first) if re.fullmatch(r"[a-z|]+", first) else []


VALUES = {"S": ["freeze-free", "pre-copy", "hybrid", "stop-copy", "copy-on-reference"], "F": ["auto", "copy", "relay", "refuse"], "T": ["keep", "close", "refuse"],
          "C": ["refuse", "accept"]}
NODES = "HOST NODE H".split()
FILES = "FILE DIR KEYFILE".split()


def value_kind(option, value):
    if value is None:
        return ""
    if value in NODES or option in ("--node", "--on", "--to"):
        return "@nodes"
    if value in FILES:
        return "@files"
    if option == "--tcp" or (value in VALUES and value != "T"):
        return " ".join(VALUES[value])
    return "@nothing"


def kind_of_arguments(arguments):
    """What may come behind the verb: nodes (places: or home), processes, files, commands."""
    kinds = []
    for word in re.findall(r"[A-Z]+", arguments or ""):
        kinds += ["@places"] if word == "HOST" else ["@nodes"] if word in NODES else ["@units"] if word in ("UNIT", "PID") else ["@files"] if word in FILES else ["@commands"] if word == "COMMAND" else []
    return kinds


def bash(godwit):
    table = verbs(godwit)
    out = ["# bash completion for godwit; made from `godwit help`", "_godwit()", "{", "\tlocal word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]} verb= i values=",
           "\tfor ((i = 1; i < COMP_CWORD; i++)); do", "\t\tcase ${COMP_WORDS[i]} in", "\t\t--socket) i=$((i + 1)) ;;", "\t\t-*) ;;", "\t\t*) verb=${COMP_WORDS[i]}; break ;;", "\t\tesac", "\tdone",
           "\tCOMPREPLY=()", "\tcase $verb/$before in"]
    for verb, arguments, _ in table:
        for option, value, _ in options(godwit, verb):
            if value:
                out.append(f"\t{verb}/{option}) values='{value_kind(option, value)}' ;;")
    out += ["\t*/--socket) values=@files ;;", "\t/*) values='" + " ".join(v for v, _, _ in table) + " --socket --version --help' ;;"]
    out.append("\thelp/*) values='" + " ".join(v for v, _, _ in table) + "' ;;")
    for verb, arguments, _ in table:
        if verb == "help":
            continue
        flags = " ".join(o for o, _, _ in options(godwit, verb))
        rest = " ".join(words(godwit, verb, arguments) + sorted(set(kind_of_arguments(arguments))))
        out += [f"\t{verb}/*)", f"\t\tif [[ $word == -* ]]; then values='{flags}'; else values='{rest}'; fi ;;"]
    out += ["\tesac", "\tfor i in $values; do", "\t\tcase $i in",
            "\t\t@nodes | @places)", "\t\t\tCOMPREPLY+=($(compgen -W \"$(godwit nodes 2>/dev/null | awk 'NR > 1 { print $1 }')\" -- \"$word\"))",
            "\t\t\t[ $i = @nodes ] || COMPREPLY+=($(compgen -W home -- \"$word\")) ;;",
            "\t\t@units) COMPREPLY+=($(compgen -W \"$(godwit ps 2>/dev/null | awk 'NR > 1 { print $1 }')\" -- \"$word\")) ;;",
            "\t\t@files) COMPREPLY+=($(compgen -f -- \"$word\")) ;;", "\t\t@commands) COMPREPLY+=($(compgen -c -- \"$word\")) ;;", "\t\t@nothing) ;;",
            "\t\t*) COMPREPLY+=($(compgen -W \"$i\" -- \"$word\")) ;;", "\t\tesac", "\tdone", "}", "complete -F _godwit godwit"]
    return "\n".join(out) + "\n"


def quoted(text):
    return "'" + text.replace("'", "'\\''") + "'"


def zsh(godwit):
    table = verbs(godwit)
    actions = {"@nodes": "_godwit_nodes", "@places": "_godwit_places", "@files": "_files", "@units": "_godwit_units", "@commands": "_command_names", "@nothing": " ", "": " "}
    out = ["#compdef godwit", "# zsh completion for godwit; made from `godwit help`",
           "_godwit_nodes() { local -a v; v=(${(f)\"$(godwit nodes 2>/dev/null | awk 'NR > 1 { print $1 }')\"}); compadd -a v }", "_godwit_places() { _godwit_nodes; compadd home }",
           "_godwit_units() { local -a v; v=(${(f)\"$(godwit ps 2>/dev/null | awk 'NR > 1 { print $1 }')\"}); compadd -a v }",
           "_godwit() {", "  local curcontext=$curcontext state line", "  local -a verbs",
           "  verbs=(" + " ".join(quoted(v.replace(":", "\\:") + ":" + s.replace(":", "\\:")) for v, _, s in table) + ")",
           "  _arguments -C '--socket[where godwitd listens]:socket:_files' '--version[print the version]' '1:verb:->verb' '*::argument:->rest' && return",
           "  if [[ $state == verb ]]; then _describe verb verbs; return; fi", "  case $line[1] in", "  help) _describe verb verbs ;;"]
    for verb, arguments, _ in table:
        if verb == "help":
            continue
        parts = []
        for option, value, text in options(godwit, verb):
            kind = value_kind(option, value)
            text = re.sub(r"[\[\]:]", " ", text)
            action = actions.get(kind, "(" + kind + ")")
            parts.append(quoted(f"*{option}[{text}]" + (f":{value}:{action}" if value else "")))
        rest = [actions[k] for k in dict.fromkeys(kind_of_arguments(arguments))]
        if words(godwit, verb, arguments):
            parts.append(quoted(f"1:word:({' '.join(words(godwit, verb, arguments))})"))
        for action in rest[:1]:
            parts.append(quoted(f"*:argument:{action}"))
        out.append(f"  {verb}) _arguments " + " ".join(parts) + " ;;")
    out += ["  esac", "}", "_godwit \"$@\""]
    return "\n".join(out) + "\n"


def fish(godwit):
    table = verbs(godwit)
    nodes = "(godwit nodes 2>/dev/null | awk 'NR > 1 { print $1 }')"
    sources = {"@nodes": nodes, "@places": nodes + " home", "@units": "(godwit ps 2>/dev/null | awk 'NR > 1 { print $1 }')",
               "@commands": "(__fish_complete_command)"}
    out = ["# fish completion for godwit; made from `godwit help`", "complete -c godwit -f", "complete -c godwit -n __fish_use_subcommand -l socket -r -F"]
    for verb, _, text in table:
        out.append(f"complete -c godwit -n __fish_use_subcommand -a {verb} -d {quoted(text)}")
    for verb, arguments, _ in table:
        seen = f"-n '__fish_seen_subcommand_from {verb}'"
        for option, value, text in options(godwit, verb):
            name = f"-l {option[2:]}" if option.startswith("--") else f"-s {option[1:]}"
            kind = value_kind(option, value)
            takes = "" if not value else " -r -F" if kind == "@files" else f" -x -a \"{sources[kind]}\"" if kind in sources else " -x" if kind == "@nothing" else f" -x -a '{kind}'"
            out.append(f"complete -c godwit {seen} {name}{takes} -d {quoted(text)}")
        for word in words(godwit, verb, arguments):
            out.append(f"complete -c godwit {seen} -a {word}")
        for kind in dict.fromkeys(kind_of_arguments(arguments)):
            out.append(f"complete -c godwit {seen} " + ("-F" if kind == "@files" else f"-a \"{sources[kind]}\""))
    out.append("complete -c godwit -n '__fish_seen_subcommand_from help' -a '" + " ".join(v for v, _, _ in table) + "'")
    return "\n".join(out) + "\n"


def main():
    if len(sys.argv) != 3 or sys.argv[2] not in ("bash", "zsh", "fish"):
        sys.exit("usage: completions.py GODWIT bash|zsh|fish")
    sys.stdout.write({"bash": bash, "zsh": zsh, "fish": fish}[sys.argv[2]](sys.argv[1]))


if __name__ == "__main__":
    main()

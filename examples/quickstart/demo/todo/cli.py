"""The command line."""

import argparse
import sys

from todo.store import Store


def line(number, task):
    return f"{number}. [{'x' if task.done else ' '}] {task.title}"


def parser():
    parser = argparse.ArgumentParser(prog="todo")
    parser.add_argument("--file", default="todo.json")
    commands = parser.add_subparsers(dest="command", required=True)
    add = commands.add_parser("add", help="add a task")
    add.add_argument("title")
    done = commands.add_parser("done", help="mark a task as done")
    done.add_argument("number", type=int)
    commands.add_parser("list", help="show the tasks")
    return parser


def main(arguments=None):
    options = parser().parse_args(arguments)
    store = Store(options.file)
    if options.command == "add":
        number = store.add(options.title)
        print(line(number, store.load()[number - 1]))
    elif options.command == "done":
        try:
            store.finish(options.number)
        except IndexError:
            print(f"There is no task {options.number}.", file=sys.stderr)
            return 1
        print(line(options.number, store.load()[options.number - 1]))
    else:
        for number, task in enumerate(store.load(), start=1):
            print(line(number, task))
    return 0

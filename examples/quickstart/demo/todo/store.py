"""Tasks, kept in a JSON file."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass
class Task:
    title: str
    done: bool = False


class Store:
    def __init__(self, path):
        self.path = Path(path)

    def load(self):
        if not self.path.exists():
            return []
        return [Task(**fields) for fields in json.loads(self.path.read_text())]

    def save(self, tasks):
        fields = [asdict(task) for task in tasks]
        self.path.write_text(json.dumps(fields, indent=2) + "\n")

    def add(self, title):
        """Adds a task and returns its number."""
        tasks = self.load()
        tasks.append(Task(title))
        self.save(tasks)
        return len(tasks)

    def finish(self, number):
        """Marks a task as done; raises IndexError if there is none."""
        tasks = self.load()
        if not 1 <= number <= len(tasks):
            raise IndexError(number)
        tasks[number - 1].done = True
        self.save(tasks)

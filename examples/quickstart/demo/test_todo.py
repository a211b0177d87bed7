import contextlib
import io
import tempfile
import unittest
from pathlib import Path

from todo.cli import main


class TodoTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.file = Path(folder.name) / "todo.json"

    def todo(self, *arguments):
        """Runs the command; gives its exit code and what it printed."""
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = main(["--file", str(self.file), *arguments])
        return code, out.getvalue() + err.getvalue()

    def test_an_empty_list(self):
        self.assertEqual(self.todo("list"), (0, ""))

    def test_tasks_are_kept_in_order(self):
        self.todo("add", "Buy milk")
        self.todo("add", "Pay the rent")
        self.assertEqual(self.todo("list"), (0, "1. [ ] Buy milk\n2. [ ] Pay the rent\n"))

    def test_a_task_is_done(self):
        self.todo("add", "Buy milk")
        self.assertEqual(self.todo("done", "1"), (0, "1. [x] Buy milk\n"))

    def test_there_is_no_such_task(self):
        self.assertEqual(self.todo("done", "7"), (1, "There is no task 7.\n"))


if __name__ == "__main__":
    unittest.main()

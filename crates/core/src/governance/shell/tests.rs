use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use super::super::glob::is_like;
use super::*;

#[test]
fn commands_are_told_apart_and_their_quotes_taken_off() {
    for (line, commands) in [
        ("git status", &["git status"][..]),
        ("  git   status\t-s ", &["git status -s"]),
        ("cd app && git push", &["cd app", "git push"]),
        ("git status; rm -rf /", &["git status", "rm -rf /"]),
        ("a|b||c&d\ne;", &["a", "b", "c", "d", "e"]),
        ("r\"m\" '-rf' \\/", &["rm -rf /"]),
        ("git commit -m \"it's; done\"", &["git commit -m 'it'\\''s; done'"]),
        ("echo '' a\\ b 'x;y'", &["echo '' 'a b' 'x;y'"]),
        ("git \\\n push", &["git push"]),
        ("gi\\\nt \"pu\\\nsh\"", &["git push"]),
        ("ls *.r? 'a*'", &["ls *.r* a*"]),
        ("echo \"\\$HOME \\x\" \\$", &["echo '$HOME \\x' '$'"]),
        ("git log 2>/dev/null | cat 2>&1 >&2 < /dev/null", &["git log", "cat"]),
        ("echo 2 >/dev/null a2>/dev/null", &["echo 2 a2"]),
        ("grep -n \"x\ny\" f", &["grep -n 'x\ny' f"]),
        ("/bin/bash -lc 'git status; rm x'", &["git status", "rm x"]),
        ("sh -e -c \"bash -c 'git push'\" name", &["git push"]),
        ("bash run.sh -c x", &["bash run.sh -c x"]),
        ("", &[]),
    ] {
        assert_eq!(simple_commands(line), Ok(commands.iter().map(|c| (*c).to_owned()).collect()), "{line}");
    }
}

#[test]
fn what_is_not_certain_is_not_read() {
    for line in [
        "git $(rm -rf /)",
        "git `rm`",
        "git \"$(rm)\"",
        "git \"`rm`\"",
        "git ${X}",
        "git $X",
        "$X push",
        "git $'x'",
        "(git status)",
        "{ git status; }",
        "git() { rm; }",
        "git <(rm)",
        "rm{,x}",
        "[ -f x ]",
        "git [a]*",
        "FOO=1 git status",
        "PATH=/tmp; git x",
        "FOO='a b' git x",
        "=rm x",
        "a+=b git",
        "git log > out",
        "git log >> out",
        "git log >out",
        "git log &> out",
        "git log &>/dev/null",
        "git log >| out",
        "git <in",
        "git << X\nrm\nX",
        "git log >&out",
        "git log >& /dev/null",
        "git log >/dev/nullx",
        "git log >'/dev/null'",
        "git log 2>&1x",
        "git <&3",
        "git log >/dev/null/../../etc/x",
        "git log >",
        "! git status",
        "if true",
        "while x",
        "time rm",
        "for x in y",
        "[[ x ]]",
        "then rm",
        "noglob rm",
        "git status # it's\nrm -rf /\n# it's",
        "# x",
        "git 'x",
        "git \"x",
        "git x\\",
        "git\rrm",
        "git\u{a0}x",
        "'git status' x",
        "r* x",
        "\"\" x",
        "g? x",
        "git\0x",
        "git '\0'",
        "bash -o pipefail -c 'rm'",
        "bash -c",
        "bash -c *",
        "bash --norc -c rm",
        "bash +x -c rm",
        "sh -c \"sh -c \\\"sh -c \\\\\\\"sh -c 'sh -c x'\\\\\\\"\\\"\"",
    ] {
        assert!(simple_commands(line).is_err(), "{line}");
    }
}

/// A folder with a bash that runs nothing, but writes down what it would.
struct Bash {
    folder: std::path::PathBuf,
}

impl Bash {
    const NOTES: &str = r#"command_not_found_handle() {
        if [ "$1" = bash ]; then shift; "$BASH" "$@"; return; fi
        printf '%s\0' "$@" $'\1' >>"$NOTED"
        return "$ANSWER"
    }"#;

    fn new() -> Option<Self> {
        use std::io::Write;
        let folder = std::env::temp_dir().join(format!("lime-shell-{}", std::process::id()));
        std::fs::create_dir_all(folder.join("empty")).unwrap();
        std::fs::write(folder.join("notes"), Self::NOTES).unwrap();
        let bash = Self { folder };
        let there = bash.ran("git 'a b'", 0) == Some(vec![vec!["git".to_owned(), "a b".to_owned()]]);
        if !there {
            writeln!(std::io::stderr(), "skipped: there is no /bin/bash of version 4 or newer").unwrap();
        }
        there.then_some(bash)
    }

    /// The words of each command that bash runs for a line, if every command gives this answer.
    fn ran(&self, line: &str, answer: u8) -> Option<Vec<Vec<String>>> {
        let noted = self.folder.join("noted");
        std::fs::write(&noted, "").unwrap();
        std::process::Command::new("/bin/bash")
            .args(["-c", line])
            .env_clear()
            .env("PATH", self.folder.join("empty"))
            .env("BASH_ENV", self.folder.join("notes"))
            .env("NOTED", &noted)
            .env("ANSWER", answer.to_string())
            .current_dir(self.folder.join("empty"))
            .stdin(std::process::Stdio::null())
            .output()
            .ok()?;
        assert_eq!(std::fs::read_dir(self.folder.join("empty")).unwrap().count(), 0, "{line:?} made a file");
        let noted = std::fs::read_to_string(&noted).unwrap();
        let commands = noted
            .split_terminator("\x01\0")
            .map(|words| words.split_terminator('\0').map(str::to_owned).collect());
        Some(commands.collect())
    }
}

impl Drop for Bash {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// A command as this module writes it.
fn as_written(words: Vec<String>) -> String {
    written(&words.into_iter().map(|text| Word { text, ..Word::default() }).collect::<Vec<_>>())
}

#[test]
fn bash_runs_nothing_that_was_not_read() {
    const PIECES: &[&str] = &[
        "git",
        "rm",
        "x",
        "git x",
        " ",
        " ",
        " ",
        ";",
        "&",
        "&&",
        "|",
        "||",
        "<",
        ">",
        "(",
        ")",
        "$",
        "`",
        "'",
        "\"",
        "\\",
        "\n",
        "#",
        "\\\n",
        "x=",
        "! ",
        "=",
        "*",
        "?",
        "{",
        "}",
        "!",
        "[",
        "]",
        "-",
        ",",
        "2",
        "1",
        ">/dev/null",
        "2>&1",
        " bash -c ",
        "bash -ec '",
        "^",
        "+",
        "%",
        "$(",
        "<<",
        "\t",
        "é",
        "if ",
        "then",
        "fi",
        ":",
    ];
    let Some(bash) = Bash::new() else { return };
    let default = ProptestConfig::default();
    let mut runner = TestRunner::new(ProptestConfig { cases: default.cases.max(1_000), ..default });
    let lines = prop::collection::vec(prop::sample::select(PIECES), 1..12).prop_map(|pieces| pieces.concat());
    let same = runner.run(&lines, |line| {
        let Ok(commands) = simple_commands(&line) else { return Ok(()) };
        for answer in [0, 1] {
            for words in bash.ran(&line, answer).unwrap() {
                let command = as_written(words);
                let known = commands.iter().any(|known| is_like(known, &command));
                prop_assert!(known, "{:?} ran {:?} and was read as {:?}", line, command, commands);
            }
        }
        Ok(())
    });
    same.unwrap();
}

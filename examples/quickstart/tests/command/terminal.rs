use std::io::Write;

use tokio::process::Command;

use crate::user::User;

/// Run by `script`, which gives it a terminal; with what the command says before the database starts.
#[tokio::test]
async fn colours_are_for_those_who_want_them() {
    let user = User::new();
    let broken = user.file("broken.toml", "");
    let line = format!(
        "{} --data-dir {} --recording {}",
        env!("CARGO_BIN_EXE_quickstart"),
        user.data().display(),
        broken.display()
    );
    let seen = |variables: &'static [(&str, &str)]| {
        let mut command = Command::new("script");
        command.args(["-qec", &line, "/dev/null"]).env_clear().envs(variables.iter().copied());
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
        async move { String::from_utf8(command.output().await.ok()?.stdout).ok() }
    };
    let coloured = seen(&[("TERM", "xterm-256color")]).await.unwrap_or_default();
    if !coloured.contains("Assembly Lime") {
        // Written past the test harness, which keeps the output of a passing test to itself.
        std::io::stderr().write_all(b"skipped: there is no `script` of util-linux here\n").unwrap();
        return;
    }
    assert!(coloured.contains("\u{1b}[1mAssembly Lime"), "{coloured:?}");
    let plain = seen(&[("TERM", "xterm-256color"), ("NO_COLOR", "1")]).await.unwrap();
    assert!(plain.contains("Assembly Lime") && !plain.contains("\u{1b}[1m"), "{plain:?}");
    let dumb = seen(&[("TERM", "dumb")]).await.unwrap();
    assert!(dumb.contains("Assembly Lime") && !dumb.contains('\u{1b}'), "{dumb:?}");
}

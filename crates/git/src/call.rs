//! One call of git: what it is given, how long it may take, how much it may say.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use lime_core::{Error, ErrorKind, Result};
use rustix::process::{Pid, Signal, kill_process_group};
use secrecy::{ExposeSecret, SecretString};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStdin, Command};
use tracing::Instrument;

use crate::failure::{self, failed};
use crate::git::{Git, Program, SETTINGS, environment};
use crate::remote::Remote;

/// The longest that git may work on this machine: 10 min, for checkouts of very large repositories.
const LOCAL_LIMIT: Duration = Duration::from_secs(600);

/// The longest that git may talk to another repository: 30 min, for the first fetch of a very large one.
const REMOTE_LIMIT: Duration = Duration::from_secs(1_800);

/// The most bytes that git may print, for lists of refs and paths: 64 MiB.
const MAX_OUTPUT: usize = 64 << 20;

/// How much of the end of stderr is kept: 4 KiB.
const STDERR_TAIL: usize = 4 << 10;

/// The variable from which the credential helper reads the token.
const TOKEN_VARIABLE: &str = "LIME_GIT_TOKEN";

/// A call in the making.
pub(crate) struct Call<'a> {
    git: &'a Git,
    operation: &'static str,
    options: Vec<OsString>,
    args: Vec<OsString>,
    env: Vec<(&'static str, OsString)>,
    token: Option<&'a SecretString>,
    dir: PathBuf,
    input: Vec<u8>,
    network: bool,
    limit: Duration,
    max_output: usize,
}

/// What git said.
#[derive(Debug)]
pub(crate) struct Output {
    /// The exit code; none, if a signal ended it.
    pub(crate) code: Option<i32>,
    /// What it printed.
    pub(crate) stdout: Vec<u8>,
    /// It had more to print than was allowed.
    pub(crate) cut: bool,
    /// The end of what it complained about, without secrets.
    pub(crate) stderr: String,
}

impl<'a> Call<'a> {
    pub(crate) fn new(git: &'a Git, operation: &'static str) -> Self {
        Self {
            git,
            operation,
            options: Vec::new(),
            args: Vec::new(),
            env: Vec::new(),
            token: None,
            dir: PathBuf::from("/"),
            input: Vec::new(),
            network: false,
            limit: LOCAL_LIMIT,
            max_output: MAX_OUTPUT,
        }
    }

    /// In this git directory, without a work tree.
    pub(crate) fn at(mut self, git_dir: &Path) -> Self {
        self.options.push(joined("--git-dir=", git_dir));
        self
    }

    /// On this work tree, from its top.
    pub(crate) fn over(mut self, work_tree: &Path) -> Self {
        self.options.push(joined("--work-tree=", work_tree));
        self.dir = work_tree.to_owned();
        self
    }

    /// In the repository that this folder belongs to, which git looks for.
    pub(crate) fn inside(mut self, folder: &Path) -> Self {
        self.dir = folder.to_owned();
        self
    }

    /// With this setting, as `name=value`.
    pub(crate) fn setting(mut self, setting: impl Into<OsString>) -> Self {
        self.options.extend(["-c".into(), setting.into()]);
        self
    }

    /// The subcommand, or more arguments of it.
    pub(crate) fn args(mut self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        self.args.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    /// With this variable.
    pub(crate) fn env(mut self, name: &'static str, value: impl Into<OsString>) -> Self {
        self.env.push((name, value.into()));
        self
    }

    /// With this on its stdin.
    pub(crate) fn input(mut self, input: impl Into<Vec<u8>>) -> Self {
        self.input = input.into();
        self
    }

    /// With at most this many bytes of output.
    pub(crate) fn max_output(mut self, bytes: usize) -> Self {
        self.max_output = bytes;
        self
    }

    /// Talking to another repository, with a token if there is one.
    ///
    /// - The helper is asked by git for the user and password of this host only, and reads the token from the
    ///   environment: it is in no argument, and a redirect to another host does not get it.
    /// - Refuses to send a token over plain http to another machine.
    pub(crate) fn to(mut self, remote: &Remote, token: Option<&'a SecretString>) -> Result<Self> {
        self.network = true;
        self.limit = REMOTE_LIMIT;
        let (Some(token), Some(host)) = (token, remote.http_origin()) else { return Ok(self) };
        if !remote.is_private() {
            return Err(Error::invalid(self.operation, "a token is not sent over plain http; use https")
                .with("url", remote));
        }
        let user = if remote.has_user() { "" } else { "username=x-access-token\\n" };
        self.token = Some(token);
        self.env.push((TOKEN_VARIABLE, token.expose_secret().into()));
        Ok(self.setting(format!(
            "credential.{host}.helper=!f() {{ test \"$1\" = get && printf '{user}password=%s\\n' \"${TOKEN_VARIABLE}\"; }}; f"
        )))
    }

    fn command(&self, program: &Program) -> Command {
        let mut command = Command::new(&program.file);
        command
            .args(SETTINGS.iter().flat_map(|setting| ["-c", setting]))
            .args(&self.options)
            .args(&self.args)
            .env_clear()
            .envs(environment(program, self.network))
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .current_dir(&self.dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true);
        command
    }

    /// Runs it to its end, whatever that is.
    ///
    /// - More output than allowed stops git, and what came until then is given back as cut.
    pub(crate) async fn output(self) -> Result<Output> {
        let span = tracing::debug_span!("git", operation = self.operation, code = tracing::field::Empty);
        async {
            let program = self.git.program().await?;
            let child = self.command(program).spawn().map_err(|error| {
                failure::io(self.operation, "git cannot be started here", &self.dir, error)
            })?;
            let output =
                tokio::time::timeout(self.limit, Box::pin(talk(child, &self.input, self.max_output)))
                    .await
                    .map_err(|_| {
                        let seconds = self.limit.as_secs();
                        Error::new(
                            ErrorKind::Timeout,
                            self.operation,
                            format!("git took longer than {seconds} s, and was stopped"),
                        )
                    })?
                    .map_err(|error| failure::io(self.operation, "git broke off", &self.dir, error))?;
            tracing::Span::current().record("code", output.code);
            let stderr = failure::redacted(&output.stderr, self.token);
            Ok(Output { stderr, ..output })
        }
        .instrument(span)
        .await
    }

    /// Runs it, and gives back all that it printed; any exit code but 0 is an error.
    pub(crate) async fn stdout(self) -> Result<Vec<u8>> {
        let (operation, limit) = (self.operation, self.max_output);
        let output = self.output().await?;
        if output.cut {
            return Err(Error::new(
                ErrorKind::LimitExceeded,
                operation,
                format!("git printed more than the {limit} bytes that are allowed here"),
            ));
        }
        if output.code == Some(0) { Ok(output.stdout) } else { Err(failed(operation, &output)) }
    }

    /// Runs it, and gives back what it printed as text without blanks around it.
    pub(crate) async fn text(self) -> Result<String> {
        let stdout = self.stdout().await?;
        Ok(String::from_utf8_lossy(&stdout).trim().to_owned())
    }
}

fn joined(option: &str, path: &Path) -> OsString {
    let mut arg = OsString::from(option);
    arg.push(path);
    arg
}

/// A process with all its children, which end when this is dropped.
struct Group(Child);

impl Drop for Group {
    fn drop(&mut self) {
        // No id: the process has been waited for, and the number may be another's by now.
        let group = self.0.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        if let Some(group) = group
            && let Err(error) = kill_process_group(group, Signal::KILL)
        {
            tracing::warn!(%error, "a git process could not be stopped");
        }
    }
}

async fn talk(child: Child, input: &[u8], max_output: usize) -> std::io::Result<Output> {
    let mut group = Group(child);
    let (stdin, stdout, stderr) = (group.0.stdin.take(), group.0.stdout.take(), group.0.stderr.take());
    let ((), (stdout, cut), stderr) =
        tokio::try_join!(feed(stdin, input), head(stdout, max_output), tail(stderr))?;
    let status = group.0.wait().await?;
    Ok(Output { code: status.code(), stdout, cut, stderr: String::from_utf8_lossy(&stderr).into_owned() })
}

async fn feed(stdin: Option<ChildStdin>, input: &[u8]) -> std::io::Result<()> {
    let Some(mut stdin) = stdin else { return Ok(()) };
    match stdin.write_all(input).await {
        // It has stopped reading, and its exit code says why.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}

/// Reads up to `limit` bytes; says whether there was more. The pipe is closed then, which ends git.
async fn head(pipe: Option<impl AsyncRead + Unpin>, limit: usize) -> std::io::Result<(Vec<u8>, bool)> {
    let mut bytes = Vec::new();
    let Some(pipe) = pipe else { return Ok((bytes, false)) };
    let more = u64::try_from(limit).map_or(u64::MAX, |limit| limit.saturating_add(1));
    pipe.take(more).read_to_end(&mut bytes).await?;
    let cut = bytes.len() > limit;
    bytes.truncate(limit);
    Ok((bytes, cut))
}

async fn tail(pipe: Option<impl AsyncRead + Unpin>) -> std::io::Result<Vec<u8>> {
    let mut kept = Vec::new();
    let Some(mut pipe) = pipe else { return Ok(kept) };
    let mut buffer = vec![0; STDERR_TAIL];
    loop {
        let read = pipe.read(&mut buffer).await?;
        if read == 0 {
            return Ok(kept);
        }
        kept.extend_from_slice(&buffer[..read]);
        let excess = kept.len().saturating_sub(STDERR_TAIL);
        kept.drain(..excess);
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::Instant;

    use tempfile::TempDir;

    use super::*;

    /// A folder with a program in it that stands in for git.
    fn fake(body: &str) -> (TempDir, Git) {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("git");
        let text = format!("#!/bin/sh\n{}\n", body.replace("DIR", dir.path().to_str().unwrap()));
        // Not by this process: a child of another test could hold the file open, and it could not be run.
        let write = "printf '%s' \"$1\" > \"$0\" && chmod 755 \"$0\"";
        let written = std::process::Command::new("sh").args(["-c", write]).arg(&file).arg(text).status();
        assert!(written.unwrap().success());
        (dir, Git::faked(file))
    }

    fn remote(url: &str) -> Remote {
        Remote::parse("test", url).unwrap()
    }

    #[tokio::test]
    async fn a_token_reaches_its_host_and_is_in_no_argument() {
        let (dir, git) = fake("printf '%s\\n' \"$@\" > DIR/args; env > DIR/env; exec git \"$@\"");
        if Git::default().program().await.is_err() {
            lime_conformance::skip("git is not installed");
            return;
        }
        let token = SecretString::from("s3cr\\net%s");
        let ask = async |url: &str, question: &str| {
            let call = git.call("test").to(&remote(url), Some(&token)).unwrap();
            call.args(["credential", "fill"]).input(question).output().await.unwrap()
        };
        let output = ask("https://git.acme.dev/shop", "protocol=https\nhost=git.acme.dev\n\n").await;
        let answer = String::from_utf8(output.stdout).unwrap();
        assert!(answer.contains("username=x-access-token\npassword=s3cr\\net%s\n"), "{answer}");
        let args = fs::read_to_string(dir.path().join("args")).unwrap();
        assert!(args.contains("credential.https://git.acme.dev.helper") && !args.contains("s3cr"), "{args}");
        let env = fs::read_to_string(dir.path().join("env")).unwrap();
        assert!(!env.lines().any(|line| line.starts_with("GIT_") && line.contains("s3cr")), "{env}");

        let output =
            ask("https://bob@git.acme.dev/shop", "protocol=https\nhost=git.acme.dev\nusername=bob\n\n").await;
        assert!(String::from_utf8(output.stdout).unwrap().contains("username=bob\npassword=s3cr"));

        for other in ["protocol=https\nhost=evil.dev\n\n", "protocol=http\nhost=git.acme.dev\n\n"] {
            let output = ask("https://git.acme.dev/shop", other).await;
            assert!(!String::from_utf8(output.stdout).unwrap().contains("s3cr"), "{other}");
        }
        assert!(git.call("test").to(&remote("http://git.acme.dev/shop"), Some(&token)).is_err());
    }

    #[tokio::test]
    async fn what_git_says_is_told_without_the_token() {
        let (_dir, git) =
            fake("echo \"fatal: denied $LIME_GIT_TOKEN for https://u:$LIME_GIT_TOKEN@h/x\" >&2; exit 128");
        let token = SecretString::from("s3cret");
        let call = git.call("test").to(&remote("https://h/x"), Some(&token)).unwrap();
        let error = call.stdout().await.unwrap_err();
        assert!(error.report().contains("fatal: denied *** for https://***@h/x"), "{}", error.report());
    }

    #[tokio::test]
    async fn the_environment_is_a_list_of_ours() {
        let (_dir, git) = fake("env");
        let text = git.call("test").text().await.unwrap();
        // `PWD`, `OLDPWD`, `SHLVL` and `_` are the shell's own.
        let shells = ["PWD", "OLDPWD", "SHLVL", "_"];
        let known = environment(git.program().await.unwrap(), false);
        for (name, _) in text.lines().filter_map(|line| line.split_once('=')) {
            assert!(shells.contains(&name) || known.iter().any(|(known, _)| *known == name), "{name}");
        }
    }

    #[tokio::test]
    async fn output_is_bounded() {
        let (_dir, git) = fake("yes");
        let output = git.call("test").max_output(10).output().await.unwrap();
        assert_eq!((output.stdout.as_slice(), output.cut), (&b"y\ny\ny\ny\ny\n"[..], true));
        let error = git.call("test").max_output(10).stdout().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::LimitExceeded);
        let (_dir, git) = fake("head -c 1000000 /dev/zero | tr '\\0' x >&2; echo end >&2; exit 1");
        let output = git.call("test").output().await.unwrap();
        assert!(output.stderr.len() <= STDERR_TAIL && output.stderr.ends_with("end\n"));
    }

    #[tokio::test]
    async fn a_call_that_takes_too_long_ends_with_all_its_children() {
        let (dir, git) = fake("(sleep 1; touch DIR/survived) & sleep 60");
        let begun = Instant::now();
        let call = Call { limit: Duration::from_millis(200), ..git.call("test") };
        let error = call.output().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout);
        assert!(begun.elapsed() < Duration::from_secs(20));
        tokio::time::sleep(Duration::from_millis(1_300)).await;
        assert!(!dir.path().join("survived").exists());
    }

    #[tokio::test]
    async fn git_that_is_not_there_is_missing() {
        let git = Git::faked("/nowhere/git".into());
        assert_eq!(git.call("test").output().await.unwrap_err().kind(), ErrorKind::Missing);
    }
}

//! What the tests of the provider share: a Codex that is a shell script, the real one, and a look at processes.

#![allow(dead_code, reason = "each test file uses a part of it")]
#![allow(clippy::unwrap_used, reason = "a test that cannot be set up must fail")]

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use lime_core::Id;
use lime_core::governance::{Allowlist, ToolLayer};
use lime_core::ports::{AgentProvider, AgentSession, SessionReport, SessionSpec};
use lime_core::runs::{AgentEvent, AgentMode, AgentRunRequest, Constraints};
use lime_provider_codex::{CodexBuilder, CodexProvider};
use tempfile::TempDir;

/// The key that the tests give; no real one.
pub(crate) const KEY: &str = "sk-test-0123456789";
/// The thread that the scripted Codex opens.
pub(crate) const THREAD: &str = "01a1fd00-707f-7b02-9d57-bfe13fd042ae";

/// A folder for the state, and one to work in.
pub(crate) struct Place {
    pub(crate) folder: TempDir,
    pub(crate) workdir: PathBuf,
}

impl Place {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let workdir = folder.path().join("work");
        fs::create_dir(&workdir).unwrap();
        Self { folder, workdir }
    }

    /// Makes the folder to work in a repository: Codex names the files of a diff from its root.
    pub(crate) fn make_repository(&self) {
        let made = Command::new("git").args(["init", "-q"]).current_dir(&self.workdir).status();
        assert!(made.unwrap().success());
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    /// A builder with a home of its own, the tests' key and the machine's `PATH`.
    pub(crate) fn builder(&self) -> CodexBuilder {
        let home = self.folder.path().join("home");
        fs::create_dir_all(&home).unwrap();
        CodexProvider::builder(self.state())
            .api_key(KEY)
            .model("gpt-5")
            .retries(0, 0)
            .pass("HOME", home.to_str().unwrap())
            .pass("PATH", std::env::var("PATH").unwrap())
    }

    /// What the scripted Codex was told: the lines of messages after the first, and why calls were denied.
    pub(crate) fn told(&self) -> PathBuf {
        self.folder.path().join("told.txt")
    }

    /// A Codex that speaks the protocol, and runs `turn` (shell) as its turn, and `interrupt` when interrupted.
    ///
    /// - `say` prints a line, `ended` ends the turn, `gate ID COMMAND` asks at the gate.
    /// - What is sent while the turn runs begins another one, which ends at once.
    pub(crate) fn scripted(&self, turn: &str, interrupt: &str) -> CodexBuilder {
        let thread = format!(r#"{{"thread":{{"id":"{THREAD}"}},"model":"gpt-5"}}"#);
        let told = self.told();
        let told = told.display();
        self.shell(&format!(
            r#"
say() {{ printf '%s\n' "$1"; }}
message() {{ say '{{"method":"item/completed","params":{{"item":{{"type":"agentMessage","id":"m","text":"'"$1"'"}}}}}}'; }}
turn='u'
begin() {{
  say '{{"id":'"$1"',"result":{{"turn":{{"id":"'"$turn"'","status":"inProgress"}}}}}}'
  say '{{"method":"turn/started","params":{{"threadId":"{THREAD}","turn":{{"id":"'"$turn"'","status":"inProgress"}}}}}}'
}}
ended() {{ say '{{"method":"turn/completed","params":{{"threadId":"{THREAD}","turn":{{"id":"'"$turn"'","status":"'"$1"'"}}}}}}'; }}
used() {{ say '{{"method":"thread/tokenUsage/updated","params":{{"threadId":"{THREAD}","tokenUsage":{{"total":{{"inputTokens":'"$1"',"outputTokens":'"$1"'}}}}}}}}'; }}
tool() {{ say '{{"method":"item/'"$1"'","params":{{"item":{{"type":"commandExecution","id":"'"$2"'","command":"x","status":"completed"}}}}}}'; }}
denied() {{ say '{{"method":"item/completed","params":{{"item":{{"type":"commandExecution","id":"'"$1"'","command":"x","status":"declined"}}}}}}'; }}
hook() {{ say '{{"method":"hook/'"$1"'","params":{{"run":{{"eventName":"preToolUse","source":"user","status":"'"$2"'"}}}}}}'; }}
gate() {{
  hook started running
  printf '{{"tool_name":"%s","tool_input":{{"command":"%s"}},"tool_use_id":"%s"}}' "${{3:-Bash}}" "$2" "$1" |
    sh -c '/bin/sh "$CODEX_HOME/ask"' 2>> '{told}'
  case $? in 0) hook completed completed ;; *) hook completed blocked; return 1 ;; esac
}}
hooks() {{ say '{{"id":'"$1"',"result":{{"data":[{{"hooks":[{{"key":"k","eventName":"preToolUse","source":"user","enabled":true,"currentHash":"h","command":"/bin/sh \"$CODEX_HOME/ask\"","trustStatus":"'"$2"'"}}]}}]}}}}'; }}
while IFS= read -r line; do
  case "$line" in
    *'"method":"initialize"'*) say '{{"id":1,"result":{{}}}}' ;;
    *'"id":6,"method":"hooks/list"'*) hooks 6 untrusted ;;
    *'"method":"config/batchWrite"'*'"trusted_hash":"h"'*) say '{{"id":7,"result":{{}}}}' ;;
    *'"id":8,"method":"hooks/list"'*) hooks 8 trusted ;;
    *'"method":"thread/start"'* | *'"method":"thread/resume"'*)
      : > "$CODEX_HOME/sessions/rollout"
      say '{{"id":2,"result":{thread}}}' ;;
    '{{"id":4,'*'"method":"turn/start"'*)
      begin 4
      {turn}
      ;;
    *'"method":"turn/start"'*)
      printf '%s\n' "$line" >> '{told}'
      id=${{line#*'"id":'}}; id=${{id%%,*}}; turn="v$id"
      begin "$id"; message "heard"; used "$((id * 10))"; ended completed
      ;;
    *'"method":"turn/interrupt"'*)
      :
      {interrupt}
      ;;
  esac
done
"#
        ))
    }

    /// A Codex that is this shell script, and says a version.
    pub(crate) fn shell(&self, script: &str) -> CodexBuilder {
        let path = self.folder.path().join("codex");
        let text =
            format!("#!/bin/sh\n[ \"$1\" = --version ] && echo 'codex-cli 0.0.1' && exit 0\n{script}\n");
        // By another process: were the file open for writing here, a fork of another test could keep it so, and it
        // could not be executed meanwhile.
        let mut writer = Command::new("sh")
            .args(["-c", "cat > \"$0\" && chmod 755 \"$0\""])
            .arg(&path)
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        writer.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        assert!(writer.wait().unwrap().success());
        self.builder().binary(path)
    }

    pub(crate) fn spec(&self, prompt: &str) -> SessionSpec {
        SessionSpec {
            request: AgentRunRequest {
                run_id: Id::new(1),
                tenant_id: Id::new(1),
                project_id: None,
                ticket_id: None,
                mode: AgentMode::Implement,
                prompt: prompt.to_owned(),
                repo: None,
                constraints: None,
            },
            workdir: self.workdir.clone(),
            instructions: String::new(),
            model: None,
            resume: None,
            tools: Allowlist::all(),
            ask: Vec::new(),
            env: Vec::new(),
        }
    }

    pub(crate) fn with_tools(&self, names: &[&str]) -> SessionSpec {
        SessionSpec { tools: Allowlist::parse(ToolLayer::Run, names).unwrap(), ..self.spec("Go on.") }
    }

    pub(crate) fn limited(&self, constraints: Constraints) -> SessionSpec {
        let mut spec = self.spec("Go on.");
        spec.request.constraints = Some(constraints);
        spec
    }
}

/// The real Codex; `None`, visibly, where `LIME_CODEX_BIN` does not name one.
pub(crate) fn real_codex() -> Option<PathBuf> {
    let path = std::env::var_os("LIME_CODEX_BIN").filter(|path| !path.is_empty());
    if path.is_none() {
        // Straight to the handle: what `println!` writes, the test harness shows of failed tests only.
        let mut stdout = std::io::stdout();
        writeln!(stdout, "skipped: LIME_CODEX_BIN names no Codex").unwrap();
    }
    path.map(PathBuf::from)
}

/// Plays a session to its end.
pub(crate) async fn play(provider: &CodexProvider, spec: SessionSpec) -> (Vec<AgentEvent>, SessionReport) {
    let mut session = provider.start(spec).await.unwrap();
    let events = all(&mut session).await;
    (events, session.report().await)
}

/// Every event until the end.
pub(crate) async fn all(session: &mut Box<dyn AgentSession>) -> Vec<AgentEvent> {
    let mut events = Vec::new();
    while let Some(event) = session.next_event().await {
        events.push(event);
    }
    events
}

/// Takes events until the one that is meant.
pub(crate) async fn until(session: &mut Box<dyn AgentSession>, meant: impl Fn(&AgentEvent) -> bool) {
    loop {
        let event = session.next_event().await.expect("the session goes on");
        if meant(&event) {
            return;
        }
    }
}

pub(crate) fn messages(events: &[AgentEvent]) -> Vec<&str> {
    events
        .iter()
        .filter_map(|event| match event {
            AgentEvent::Message { text, .. } => Some(text.as_str()),
            _ => None,
        })
        .collect()
}

/// A number that no other test's processes have in their command line.
pub(crate) fn mark() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("7{}{:04}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// How many processes have this text in their command line or environment.
pub(crate) fn living(mark: &str) -> usize {
    let has = |path: &Path, file: &str| {
        let bytes = fs::read(path.join(file)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).contains(mark)
    };
    fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| has(path, "cmdline") || has(path, "environ"))
        .count()
}

/// Waits until something is so; panics after ten seconds.
pub(crate) async fn wait_for(what: &str, so: impl Fn() -> bool) {
    let until = Instant::now() + Duration::from_secs(10);
    while !so() {
        assert!(Instant::now() < until, "{what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

//! Where Codex keeps what it writes: a home for one run, and threads that outlive it.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use tempfile::TempDir;

/// Read and written by the worker's own user alone.
const PRIVATE: u32 = 0o700;

/// The folder in which a provider keeps its state.
///
/// - `runs/<name>/`: of one run, thrown away at its end: `home` (`CODEX_HOME`), `tmp` (`TMPDIR`) and `lock`,
///   which is held as long as the run goes on, so that another worker sees what was left behind.
/// - `sessions/<name>/`: what Codex needs to go on with a thread, written there by itself while it works.
/// - `threads/<thread id>`: a link to the `sessions/<name>` of that thread.
#[derive(Debug, Clone)]
pub(crate) struct Homes {
    state: PathBuf,
}

/// The home of one run.
#[derive(Debug)]
pub(crate) struct Home {
    state: PathBuf,
    sessions: PathBuf,
    folder: TempDir,
    /// The link to the thread, once there is one.
    thread: Option<PathBuf>,
    _lock: File,
}

impl Homes {
    pub(crate) fn new(state: PathBuf) -> Self {
        Self { state }
    }

    /// The folder itself, as far as it is there.
    pub(crate) fn state(&self) -> io::Result<PathBuf> {
        let state = std::path::absolute(&self.state)?;
        Ok(state.canonicalize().unwrap_or(state))
    }

    /// Whether a thread with this id was kept.
    pub(crate) fn has(&self, thread_id: &str) -> bool {
        is_thread_id(thread_id) && self.state.join("threads").join(thread_id).is_dir()
    }

    /// Makes a home; for a thread that was kept, with its sessions in it.
    pub(crate) fn open(&self, resume: Option<&str>, config: &str, login: Option<&Path>) -> io::Result<Home> {
        // Codex compares and records absolute paths.
        let state = std::path::absolute(&self.state)?;
        let runs = state.join("runs");
        let kept = state.join("sessions");
        for folder in [&runs, &kept, &state.join("threads")] {
            DirBuilder::new().recursive(true).mode(PRIVATE).create(folder)?;
        }
        sweep(&runs);
        let folder = tempfile::Builder::new()
            .prefix("run-")
            .permissions(fs::Permissions::from_mode(PRIVATE))
            .tempdir_in(&runs)?;
        let lock = File::create(folder.path().join("lock"))?;
        lock.try_lock().map_err(io::Error::from)?;
        let sessions = match resume {
            Some(thread_id) => fs::canonicalize(state.join("threads").join(thread_id))?,
            None => tempfile::Builder::new()
                .permissions(fs::Permissions::from_mode(PRIVATE))
                .tempdir_in(&kept)?
                .keep(),
        };
        let home = Home { state, sessions, folder, thread: None, _lock: lock };
        for path in [home.path(), home.tmp()] {
            DirBuilder::new().mode(PRIVATE).create(path)?;
        }
        symlink(&home.sessions, home.path().join("sessions"))?;
        fs::write(home.path().join("config.toml"), config)?;
        if let Some(login) = login {
            // A link, never a copy: refreshing a login makes its old tokens void, so there can be only one.
            symlink(std::path::absolute(login)?.join("auth.json"), home.path().join("auth.json"))?;
        }
        Ok(home)
    }
}

impl Home {
    /// `CODEX_HOME`.
    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path().join("home")
    }

    /// `TMPDIR`: not above the home, under which Codex would refuse to put its helper programs.
    pub(crate) fn tmp(&self) -> PathBuf {
        self.folder.path().join("tmp")
    }

    /// Lets the thread be found by its id.
    pub(crate) fn keep(&mut self, thread_id: &str) -> io::Result<()> {
        if !is_thread_id(thread_id) {
            return Err(io::Error::other("the thread's id cannot be a file's name"));
        }
        let Some(name) = self.sessions.file_name() else {
            return Ok(());
        };
        let link = self.state.join("threads").join(thread_id);
        match symlink(Path::new("../sessions").join(name), &link) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            done => done?,
        }
        self.thread = Some(link);
        Ok(())
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        // Only goes where it is empty: Codex ended before it wrote anything that could be resumed.
        if fs::remove_dir(&self.sessions).is_ok()
            && let Some(Err(error)) = self.thread.as_ref().map(fs::remove_file)
        {
            tracing::warn!(%error, "the link to a Codex thread that is not there could not be removed");
        }
    }
}

/// Removes the homes of runs whose worker is gone.
fn sweep(runs: &Path) {
    let Ok(entries) = fs::read_dir(runs) else {
        return;
    };
    for entry in entries.flatten() {
        let lock = File::options().write(true).open(entry.path().join("lock"));
        if lock.is_ok_and(|lock| lock.try_lock().is_ok())
            && let Err(error) = fs::remove_dir_all(entry.path())
        {
            tracing::warn!(%error, "the home of a lost Codex run could not be removed");
        }
    }
}

/// Codex's ids are UUIDs; anything else must not become a path.
fn is_thread_id(id: &str) -> bool {
    id.len() == 36 && id.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    const THREAD: &str = "01a1fd00-707f-7b02-9d57-bfe13fd042ae";

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_thread_outlives_its_home() {
        let state = tempfile::tempdir().unwrap();
        let homes = Homes::new(state.path().to_owned());
        let mut home = homes.open(None, "", None).unwrap();
        fs::write(home.path().join("sessions/rollout"), "x").unwrap();
        assert!(!homes.has(THREAD));
        home.keep(THREAD).unwrap();
        home.keep(THREAD).unwrap();
        drop(home);
        assert!(homes.has(THREAD));
        assert_eq!(names(&state.path().join("runs")), Vec::<String>::new());
        let again = homes.open(Some(THREAD), "", None).unwrap();
        assert_eq!(fs::read_to_string(again.path().join("sessions/rollout")).unwrap(), "x");
    }

    #[test]
    fn homes_are_private_and_leave_nothing_behind() {
        let state = tempfile::tempdir().unwrap();
        let login = tempfile::tempdir().unwrap();
        fs::write(login.path().join("auth.json"), "{}").unwrap();
        let home = Homes::new(state.path().to_owned()).open(None, "a = 1\n", Some(login.path())).unwrap();
        for path in [home.path(), home.tmp(), home.path().join("sessions")] {
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, PRIVATE);
        }
        assert!(home.path().join("auth.json").is_symlink());
        drop(home);
        for folder in ["runs", "sessions", "threads"] {
            assert_eq!(names(&state.path().join(folder)), Vec::<String>::new());
        }
        assert!(login.path().join("auth.json").is_file());
    }

    #[test]
    fn what_a_lost_worker_left_is_swept_and_what_lives_is_not() {
        let state = tempfile::tempdir().unwrap();
        let homes = Homes::new(state.path().to_owned());
        let living = homes.open(None, "", None).unwrap();
        let lost = state.path().join("runs/run-lost");
        fs::create_dir(&lost).unwrap();
        File::create(lost.join("lock")).unwrap();
        let _other = homes.open(None, "", None).unwrap();
        assert!(living.path().is_dir());
        assert!(!lost.exists());
    }

    #[test]
    fn an_id_is_never_a_path() {
        let state = tempfile::tempdir().unwrap();
        let homes = Homes::new(state.path().to_owned());
        let mut home = homes.open(None, "", None).unwrap();
        for id in ["", "..", "../../../../../../../../../../../../etc", "a/b"] {
            assert!(!homes.has(id));
            assert!(home.keep(id).is_err());
        }
    }
}

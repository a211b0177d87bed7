use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use directories::ProjectDirs;

use crate::exit::Refusal;

/// The folder in which everything is kept.
#[derive(Debug)]
pub(crate) struct Place(PathBuf);

impl Place {
    /// The folder that was asked for, or the one where the system keeps the state of programs; it is not made yet.
    pub(crate) fn choose(asked: Option<&Path>) -> Result<Self, Refusal> {
        let folder = match asked {
            Some(folder) => folder.to_owned(),
            None => {
                let folders = ProjectDirs::from("", "", "assembly-lime").ok_or_else(|| {
                    Refusal::new("you have no home folder to keep things in; name a folder with --data-dir")
                })?;
                folders.state_dir().unwrap_or_else(|| folders.data_local_dir()).join("quickstart")
            }
        };
        std::path::absolute(&folder).map(Self).map_err(|error| unusable(&folder, &error))
    }

    /// Makes the folder, for this user alone, and finds out whether it can be written to.
    pub(crate) fn make(&self) -> Result<(), Refusal> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.0)
            .and_then(|()| tempfile::tempfile_in(&self.0))
            .map(drop)
            .map_err(|error| unusable(&self.0, &error))
    }

    /// The embedded database.
    pub(crate) fn database(&self) -> PathBuf {
        self.0.join("postgres")
    }

    /// The demo project.
    pub(crate) fn demo(&self) -> PathBuf {
        self.0.join("demo")
    }

    /// Mirrors of repositories, and the checkouts that agents work in.
    pub(crate) fn work(&self) -> PathBuf {
        self.0.join("work")
    }

    /// The checkouts among them.
    pub(crate) fn checkouts(&self) -> PathBuf {
        self.work().join("checkouts")
    }

    /// What Codex keeps from one run to the next.
    pub(crate) fn codex(&self) -> PathBuf {
        self.0.join("codex")
    }
}

fn unusable(folder: &Path, error: &std::io::Error) -> Refusal {
    let folder = folder.display();
    Refusal::new(format!(
        "the folder {folder} cannot be used: {error}\n  Name one that you may write to with --data-dir."
    ))
}

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::agents::{InstructionLayer, LayerScope, LayerSource, ResolvedInstructions};
use crate::ports::{CommitId, CommittedFile, CommittedFiles, FilesWanted, LeftOut};
use crate::repos::Repository;
use crate::runs::ProviderId;
use crate::{Editable, Id, Invalid, entity};

/// The one whose files have its name; `AGENTS.md` is everybody's.
const CLAUDE: ProviderId = ProviderId::from_static("claude");

/// What a repository itself says to agents, as its last synced commit has it (001 repository_configs).
///
/// - From `AGENTS.md` and `CLAUDE.md` at its top, and `CLAUDE.md` and `rules/*.md` in its folder.
/// - Read once for each commit that work starts from; whose name, owner and branch it has are the repository's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RepositoryConfig {
    /// The repository; one for each.
    pub repository_id: Id<Repository>,
    /// The folder that is read, `.claude` unless given: a path from the top of the repository.
    pub config_path: String,
    /// The commit that it was read from; none before it was read, and to have it read anew.
    pub config_sha: Option<CommitId>,
    /// What was read.
    pub config: RepositoryInstructions,
    /// When it was read.
    pub last_synced_at: Option<DateTime<Utc>>,
    /// Why it could not be read the last time.
    pub sync_error: Option<String>,
}

/// The files that instructions are read from; `config` in the database.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RepositoryInstructions {
    /// The files, in the order in which they are told.
    pub files: Vec<CommittedFile>,
    /// What is there and is not told.
    pub left_out: Vec<LeftOut>,
}

impl From<CommittedFiles> for RepositoryInstructions {
    fn from(CommittedFiles { files, left_out }: CommittedFiles) -> Self {
        Self { files, left_out }
    }
}

impl RepositoryConfig {
    /// The folder that is read unless another is given (001).
    pub const FOLDER: &'static str = ".claude";
    /// The most files.
    pub const MAX_FILES: usize = 20;
    /// The most characters that are kept of why it could not be read.
    pub const MAX_ERROR_CHARS: usize = 2_000;
    /// The most bytes of all files together, 128 KiB: as much as that is left for what the tenant's people say.
    pub const MAX_BYTES: usize = ResolvedInstructions::MAX_BYTES / 2;

    /// What nobody has read yet.
    pub fn new(repository_id: Id<Repository>) -> Self {
        Self {
            repository_id,
            config_path: Self::FOLDER.to_owned(),
            config_sha: None,
            config: RepositoryInstructions::default(),
            last_synced_at: None,
            sync_error: None,
        }
    }

    /// Which files are to be read.
    pub fn wanted(&self) -> FilesWanted {
        let folder = &self.config_path;
        FilesWanted {
            paths: vec![
                "AGENTS.md".to_owned(),
                "CLAUDE.md".to_owned(),
                format!("{folder}/CLAUDE.md"),
                format!("{folder}/rules/*.md"),
            ],
            max_files: Self::MAX_FILES,
            max_file_bytes: ResolvedInstructions::MAX_LAYER_BYTES,
            max_bytes: Self::MAX_BYTES,
        }
    }

    /// The same with what a commit has.
    #[must_use]
    pub fn synced(self, commit: &CommitId, files: CommittedFiles, now: DateTime<Utc>) -> Self {
        Self {
            config_sha: Some(commit.clone()),
            config: files.into(),
            last_synced_at: Some(now),
            sync_error: None,
            ..self
        }
    }

    /// The same after it could not be read: nothing of it is told, and it is read anew the next time.
    #[must_use]
    pub fn unread(self, why: &str) -> Self {
        let why = why.chars().take(Self::MAX_ERROR_CHARS).collect();
        let nothing = RepositoryInstructions::default();
        Self { config_sha: None, config: nothing, sync_error: Some(why), ..self }
    }

    /// What agents are told of it, but for the files that they read by themselves; nothing is told twice.
    pub fn layers(&self, read_by_agents: impl Fn(&str) -> bool) -> Vec<InstructionLayer> {
        let Some(commit) = &self.config_sha else {
            return Vec::new();
        };
        let (own, others): (Vec<_>, Vec<_>) =
            self.config.files.iter().partition(|file| read_by_agents(&file.path));
        let mut known: Vec<_> = own.into_iter().map(|file| file.content.trim()).collect();
        let mut layers = Vec::new();
        for file in others {
            if known.contains(&file.content.trim()) {
                continue;
            }
            known.push(file.content.trim());
            let source = LayerSource::File {
                repository: self.repository_id,
                path: file.path.clone(),
                commit: commit.clone(),
            };
            let provider = (file.path != "AGENTS.md").then_some(CLAUDE);
            let layer = InstructionLayer::new(LayerScope::Checkout, source, file.content.as_str());
            layers.push(InstructionLayer { provider, ..layer });
        }
        layers
    }
}

entity! {
    RepositoryConfig as "repository configuration" in "repository_configs" {
        REPOSITORY_ID: Id<Repository> = repository_id => |config| config.repository_id;
        CONFIG_SHA: Option<CommitId> = config_sha => |config| config.config_sha.clone();
    }
    unique [REPOSITORY_ID];
    refers REPOSITORY_ID -> Repository Cascade;
    validate |config| {
        let folder = config.config_path.as_str();
        Invalid::text("config_path", folder, 1, 255)?;
        let plain = |part: &str| !part.is_empty() && part != "." && part != ".." && !part.starts_with('-');
        let odd = |c: char| c.is_control() || matches!(c, '*' | '\\' | ':');
        if !folder.split('/').all(plain) || folder.contains(odd) {
            let rule = "must be a folder's path from the top of the repository, such as `.claude`";
            return Err(Invalid::new("config_path", rule));
        }
        if let Some(commit) = &config.config_sha {
            Invalid::text("config_sha", commit, 1, 64)?;
        }
        let files = &config.config.files;
        if files.len() > RepositoryConfig::MAX_FILES {
            return Err(Invalid::new("config", format!("must have at most {} files", RepositoryConfig::MAX_FILES)));
        }
        if files.iter().map(|file| file.content.len()).sum::<usize>() > RepositoryConfig::MAX_BYTES {
            return Err(Invalid::new("config", format!("must have at most {} bytes", RepositoryConfig::MAX_BYTES)));
        }
        for file in files {
            Invalid::no_nul("config", &file.path)?;
            Invalid::no_nul("config", &file.content)?;
        }
        if let Some(error) = &config.sync_error {
            Invalid::text("sync_error", error, 1, RepositoryConfig::MAX_ERROR_CHARS)?;
            Invalid::no_nul("sync_error", error)?;
        }
        Ok(())
    };
}
impl Editable for RepositoryConfig {}

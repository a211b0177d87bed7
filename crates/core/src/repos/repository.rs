use crate::{Editable, Id, Invalid, Value, entity};

/// A connection to a code host; known here by its id only, until its table comes with the code hosts.
#[derive(Debug, Clone, Copy)]
pub enum Connector {}

/// A git repository that agents work in (000 §5.4).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repository {
    /// The connection that it was found by; none for a repository on disk or a bare URL.
    pub connector_id: Option<Id<Connector>>,
    /// The kind of host.
    pub provider: RepoKind,
    /// The host's own id of it.
    pub external_repo_id: Option<i64>,
    /// The account that owns it; the parent folder, for one on disk.
    pub owner: String,
    /// Its name.
    pub name: String,
    /// `owner/name`, unique in the tenant for the kind of host; the whole path, for one on disk.
    pub full_name: String,
    /// What `git clone` takes: a URL or a path, without credentials.
    pub clone_url: String,
    /// The branch that work starts from.
    pub default_branch: String,
    /// Whether new runs may start in it.
    pub is_enabled: bool,
}

/// The kind of code host; a `SMALLINT` in the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RepoKind {
    /// 1.
    Github,
    /// 2.
    Gitlab,
    /// 3.
    Bitbucket,
    /// 4: a path on this machine, or any URL that git can clone (ours).
    Local,
}

impl RepoKind {
    /// The number in the database.
    pub const fn code(self) -> i16 {
        match self {
            Self::Github => 1,
            Self::Gitlab => 2,
            Self::Bitbucket => 3,
            Self::Local => 4,
        }
    }

    /// The kind with this number.
    pub const fn from_code(code: i16) -> Option<Self> {
        match code {
            1 => Some(Self::Github),
            2 => Some(Self::Gitlab),
            3 => Some(Self::Bitbucket),
            4 => Some(Self::Local),
            _ => None,
        }
    }
}

impl From<RepoKind> for Value {
    fn from(kind: RepoKind) -> Self {
        Self::Int(kind.code().into())
    }
}

entity! {
    Repository as "repository" in "repositories" {
        PROVIDER: RepoKind = provider => |repository| repository.provider;
        FULL_NAME: String = full_name => |repository| repository.full_name.clone();
        EXTERNAL_REPO_ID: Option<i64> = external_repo_id => |repository| repository.external_repo_id;
        IS_ENABLED: bool = is_enabled => |repository| repository.is_enabled;
    }
    unique [PROVIDER, FULL_NAME];
    validate |repository| {
        for (field, text) in [
            ("owner", &repository.owner),
            ("name", &repository.name),
            ("full_name", &repository.full_name),
            ("clone_url", &repository.clone_url),
            ("default_branch", &repository.default_branch),
        ] {
            Invalid::text(field, text, 1, 4_096)?;
            Invalid::no_nul(field, text)?;
        }
        if repository.clone_url.starts_with('-') {
            return Err(Invalid::new("clone_url", "must be a URL or a path, not an option"));
        }
        if let Some((_, rest)) = repository.clone_url.split_once("://")
            && rest.split('/').next().is_some_and(|authority| authority.contains(':') && authority.contains('@'))
        {
            return Err(Invalid::new("clone_url", "must not carry a password; credentials come from the connector"));
        }
        Ok(())
    };
}
impl Editable for Repository {}

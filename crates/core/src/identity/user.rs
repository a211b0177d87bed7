use crate::{Editable, Invalid, Value, entity};

/// A person in a tenant (000 §5.2 users; 003 organization_members).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// The address, unique in the tenant whatever its case.
    pub email: String,
    /// The name that people see.
    pub name: Option<String>,
    /// The person's numeric id at GitHub.
    pub github_user_id: Option<i64>,
    /// Whether the person may act.
    pub status: UserStatus,
}

/// Whether a user may act; a `SMALLINT` in the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UserStatus {
    /// 0: may not.
    Disabled,
    /// 1: may.
    Active,
}

impl UserStatus {
    /// The number in the database.
    pub const fn code(self) -> i16 {
        match self {
            Self::Disabled => 0,
            Self::Active => 1,
        }
    }

    /// The status with this number.
    pub const fn from_code(code: i16) -> Option<Self> {
        match code {
            0 => Some(Self::Disabled),
            1 => Some(Self::Active),
            _ => None,
        }
    }
}

impl From<UserStatus> for Value {
    fn from(status: UserStatus) -> Self {
        Self::Int(status.code().into())
    }
}

/// Checks an address.
pub(super) fn check_email(email: &str) -> Result<(), Invalid> {
    let (local, domain) = email.split_once('@').unwrap_or_default();
    if local.is_empty() || domain.is_empty() || email.len() > 320 || email.contains(char::is_whitespace) {
        return Err(Invalid::new(
            "email",
            "must be an address such as ada@example.com, of at most 320 bytes",
        ));
    }
    Invalid::no_nul("email", email)
}

entity! {
    User as "user" in "users" {
        EMAIL: String = email => |user| user.email.to_lowercase();
        GITHUB_USER_ID: Option<i64> = github_user_id => |user| user.github_user_id;
        STATUS: UserStatus = status => |user| user.status;
    }
    unique [EMAIL];
    validate |user| {
        check_email(&user.email)?;
        user.name.as_deref().map_or(Ok(()), |name| Invalid::no_nul("name", name))
    };
}
impl Editable for User {}

use super::matrix;
use super::permission::Permissions;
use super::user::User;
use crate::planning::Project;
use crate::words::words;
use crate::{Editable, Id, Invalid, entity};

/// A name for permissions that go together (000 §5.2 roles).
///
/// - Its permissions are data: a tenant has the [built-in](BuiltInRole) roles from its beginning, and makes others.
/// - A built-in role is what this version says. Whoever wants it otherwise makes a role of their own, so that seeding
///   after an update takes nothing away that somebody decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Role {
    /// The name, 1 to 60 characters, unique in the tenant.
    pub name: String,
    /// What it permits.
    pub permissions: Permissions,
    /// Whether it is one of the [`BuiltInRole`]s.
    pub is_built_in: bool,
}

impl Role {
    /// A role of the tenant's own.
    pub fn new(name: impl Into<String>, permissions: Permissions) -> Self {
        Self { name: name.into(), permissions, is_built_in: false }
    }

    /// A built-in role, as seeding stores it.
    ///
    /// - Seeding inserts those of [`BuiltInRole::ALL`] that are missing and updates those that differ, so it can be
    ///   done again at any time: a new tenant, a new version.
    pub fn built_in(role: BuiltInRole) -> Self {
        Self { name: role.as_str().to_owned(), permissions: role.permissions(), is_built_in: true }
    }
}

words! {
    /// The roles that every tenant has from its beginning (000 §5.2), and what they permit.
    ///
    #[doc = include_str!("matrix.md")]
    pub enum BuiltInRole: "role" {
        /// Runs the tenant: people, rights, connections, rules.
        Admin = "admin",
        /// Plans the work, and accepts it.
        Pm = "pm",
        /// Has the work done, and answers the agents' questions.
        Dev = "dev",
        /// Tests the work, and accepts it.
        Qa = "qa",
    }
}

impl BuiltInRole {
    /// Its column of the matrix.
    pub fn permissions(self) -> Permissions {
        matrix::column(match self {
            Self::Admin => matrix::ADMIN,
            Self::Pm => matrix::PM,
            Self::Dev => matrix::DEV,
            Self::Qa => matrix::QA,
        })
    }
}

impl Permissions {
    /// The most that an agent may do while it works a run: the last column of the matrix.
    pub fn of_agents() -> Self {
        matrix::column(matrix::AGENT)
    }
}

entity! {
    Role as "role" in "roles" {
        NAME: String = name => |role| role.name.clone();
        IS_BUILT_IN: bool = is_built_in => |role| role.is_built_in;
    }
    unique [NAME];
    validate |role| {
        Invalid::text("name", &role.name, 1, 60)?;
        Invalid::no_nul("name", &role.name)?;
        let built_in = BuiltInRole::parse(&role.name.trim().to_lowercase());
        match (role.is_built_in, built_in) {
            (false, Err(_)) => Ok(()),
            (false, Ok(name)) => Err(Invalid::new("name", format!("`{name}` is a built-in role; take another name"))),
            (true, Ok(name)) if *role == Role::built_in(name) => Ok(()),
            (true, _) => {
                let rule = "a built-in role stays as it is; make one of your own with these permissions";
                Err(Invalid::new("permissions_json", rule))
            }
        }
    };
}
impl Editable for Role {}

/// That a person has a role (000 §5.2 user_roles).
///
/// - Somebody may have several, and the same in several projects: what any of them permits is permitted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserRole {
    /// The person.
    pub user_id: Id<User>,
    /// The role.
    pub role_id: Id<Role>,
    /// The project that it is limited to (ours); the whole tenant, if none.
    pub project_id: Option<Id<Project>>,
}

entity! {
    UserRole as "assignment of a role" in "user_roles" {
        USER_ID: Id<User> = user_id => |it| it.user_id;
        ROLE_ID: Id<Role> = role_id => |it| it.role_id;
        PROJECT_ID: Option<Id<Project>> = project_id => |it| it.project_id;
    }
    unique [USER_ID, ROLE_ID, PROJECT_ID];
    nulls_equal true;
    refers USER_ID -> User Cascade;
    refers ROLE_ID -> Role Restrict;
    refers PROJECT_ID -> Project Cascade; // emptied, it would be the whole tenant
    validate |_it| Ok(());
}
impl Editable for UserRole {}

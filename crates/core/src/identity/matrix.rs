//! Who may do what: the one table.

use super::permission::{Action, Permission, Permissions, Resource};

/// A permission, and who has it from the start.
pub(super) struct Row {
    pub(super) permission: Permission,
    admin: bool,
    pm: bool,
    dev: bool,
    qa: bool,
    agent: bool,
}

/// The permissions of a column.
pub(super) fn column(has: fn(&Row) -> bool) -> Permissions {
    MATRIX.iter().filter(|row| has(row)).map(|row| row.permission).collect()
}

pub(super) const ADMIN: fn(&Row) -> bool = |row| row.admin;
pub(super) const PM: fn(&Row) -> bool = |row| row.pm;
pub(super) const DEV: fn(&Row) -> bool = |row| row.dev;
pub(super) const QA: fn(&Row) -> bool = |row| row.qa;
pub(super) const AGENT: fn(&Row) -> bool = |row| row.agent;

macro_rules! matrix {
    ($($resource:ident $action:ident $admin:tt $pm:tt $dev:tt $qa:tt $agent:tt;)*) => {
        pub(super) const MATRIX: &[Row] = &[$(Row {
            permission: Permission { resource: Resource::$resource, action: Action::$action },
            admin: matrix!(@ $admin),
            pm: matrix!(@ $pm),
            dev: matrix!(@ $dev),
            qa: matrix!(@ $qa),
            agent: matrix!(@ $agent),
        }),*];
    };
    (@ x) => { true };
    (@ -) => { false };
}

matrix! {
//  resource          action    admin  pm  dev  qa  agent
    Tenant            Read        x    x    x    x    -;
    Tenant            Update      x    -    -    -    -;
    User              Create      x    -    -    -    -;
    User              Read        x    x    x    x    -;
    User              Update      x    -    -    -    -;
    User              Delete      x    -    -    -    -;
    Role              Create      x    -    -    -    -;
    Role              Read        x    x    x    x    -;
    Role              Update      x    -    -    -    -;
    Role              Delete      x    -    -    -    -;
    Role              Assign      x    -    -    -    -;
    ApiKey            Create      x    -    -    -    -;
    ApiKey            Read        x    -    -    -    -;
    ApiKey            Delete      x    -    -    -    -;
    // Everybody may automate what they may do; a key is never worth more than who it belongs to.
    OwnApiKey         Create      x    x    x    x    -;
    OwnApiKey         Read        x    x    x    x    -;
    OwnApiKey         Delete      x    x    x    x    -;

    Project           Create      x    x    -    -    -;
    Project           Read        x    x    x    x    x;
    Project           Update      x    x    -    -    -;
    Project           Delete      x    -    -    -    -;
    Board             Create      x    x    -    -    -;
    Board             Read        x    x    x    x    x;
    Board             Update      x    x    -    -    -;
    Board             Delete      x    x    -    -    -;
    Ticket            Create      x    x    x    x    x;
    Ticket            Read        x    x    x    x    x;
    Ticket            Update      x    x    x    x    x;
    Ticket            Delete      x    x    -    -    -;
    // Work is not signed off by those who had it done.
    Ticket            Decide      x    x    -    x    -;

    Connector         Create      x    -    -    -    -;
    Connector         Read        x    x    x    x    -;
    Connector         Update      x    -    -    -    -;
    Connector         Delete      x    -    -    -    -;
    Repository        Create      x    -    x    -    -;
    Repository        Read        x    x    x    x    x;
    Repository        Update      x    -    x    -    -;
    Repository        Delete      x    -    -    -    -;
    Webhook           Create      x    -    -    -    -;
    Webhook           Read        x    -    x    -    -;
    Webhook           Update      x    -    -    -    -;
    Webhook           Delete      x    -    -    -    -;

    // An agent starts no agents, and answers no questions: neither its own nor another's.
    Run               Create      x    x    x    x    -;
    Run               Read        x    x    x    x    x;
    Run               Steer       x    x    x    x    -;
    Run               Cancel      x    x    x    x    -;
    Approval          Read        x    x    x    x    x;
    Approval          Decide      x    x    x    -    -;
    ApprovalPolicy    Create      x    -    -    -    -;
    ApprovalPolicy    Read        x    x    x    x    -;
    ApprovalPolicy    Update      x    -    -    -    -;
    ApprovalPolicy    Delete      x    -    -    -    -;
    Instruction       Create      x    x    x    -    -;
    Instruction       Read        x    x    x    x    x;
    Instruction       Update      x    x    x    -    -;
    Instruction       Delete      x    x    x    -    -;
    Tool              Create      x    -    -    -    -;
    Tool              Read        x    x    x    x    x;
    Tool              Update      x    -    -    -    -;
    Tool              Delete      x    -    -    -    -;
    Budget            Create      x    x    -    -    -;
    Budget            Read        x    x    x    x    -;
    Budget            Update      x    x    -    -    -;
    Budget            Delete      x    -    -    -    -;

    EnvVar            Create      x    -    x    -    -;
    EnvVar            Read        x    -    x    -    -;
    EnvVar            Update      x    -    x    -    -;
    EnvVar            Delete      x    -    -    -    -;
    // A hook is code that runs for the whole tenant.
    Hook              Create      x    -    -    -    -;
    Hook              Read        x    x    x    x    -;
    Hook              Update      x    -    -    -    -;
    Hook              Delete      x    -    -    -    -;
    Pipeline          Create      x    -    x    -    -;
    Pipeline          Read        x    x    x    x    -;
    Pipeline          Update      x    -    x    -    -;
    Pipeline          Delete      x    -    -    -    -;
    DeploymentTarget  Create      x    -    -    -    -;
    DeploymentTarget  Read        x    x    x    x    -;
    DeploymentTarget  Update      x    -    -    -    -;
    DeploymentTarget  Delete      x    -    -    -    -;
    AuditLog          Read        x    -    -    -    -;
}

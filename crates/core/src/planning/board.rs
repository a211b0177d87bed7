use crate::planning::{Project, Workflow};
use crate::{Editable, Id, Invalid, entity};

/// A board of a project: its columns and how tickets move (000 §5.3; DESIGN).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Board {
    /// The project.
    pub project_id: Id<Project>,
    /// The name, unique in the project, 1 to 100 characters.
    pub name: String,
    /// Columns, moves and gates; the columns are also kept as `columns_json`, as the lead document asks.
    pub workflow: Workflow,
}

entity! {
    Board as "board" in "boards" {
        PROJECT_ID: Id<Project> = project_id => |board| board.project_id;
        NAME: String = name => |board| board.name.clone();
    }
    unique [PROJECT_ID, NAME];
    refers PROJECT_ID -> Project Cascade;
    validate |board| {
        Invalid::text("name", &board.name, 1, 100)?;
        Invalid::no_nul("name", &board.name)?;
        board.workflow.validate()
    };
}
impl Editable for Board {}

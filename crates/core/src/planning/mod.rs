//! What to do: projects, boards with a workflow, tickets.

mod board;
mod project;
mod ticket;
mod workflow;

pub use board::Board;
pub use project::{Project, ProjectConfig};
pub use ticket::{Approval, Priority, Ticket, TicketProgress};
pub use workflow::{ColumnKey, Gate, Move, MoveFacts, MoveRefused, Workflow};

//! What agents may use, and what it costs.

mod prices;
mod redactor;

pub use prices::{ModelPrice, PriceTable};
pub use redactor::Redactor;

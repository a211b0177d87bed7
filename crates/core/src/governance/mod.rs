//! What agents may use, and what it costs.

mod prices;

pub use prices::{ModelPrice, PriceTable};

//! What a scenario found.

use std::time::Duration;

/// The figures of one scenario, and what is broken.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) scenario: &'static str,
    pub(crate) figures: Vec<(String, String)>,
    pub(crate) wrongs: Vec<String>,
}

impl Report {
    pub(crate) fn new(scenario: &'static str) -> Self {
        Self { scenario, figures: Vec::new(), wrongs: Vec::new() }
    }

    #[allow(clippy::needless_pass_by_value, reason = "figures are small, and calls read better so")]
    pub(crate) fn figure(&mut self, name: impl Into<String>, value: impl ToString) {
        self.figures.push((name.into(), value.to_string()));
    }

    pub(crate) fn seconds(&mut self, name: impl Into<String>, length: Duration) {
        self.figure(name, format!("{:.1} s", length.as_secs_f64()));
    }

    /// Notes a wrong unless the condition holds.
    pub(crate) fn expect(&mut self, holds: bool, wrong: impl FnOnce() -> String) {
        if !holds {
            self.wrongs.push(wrong());
        }
    }

    pub(crate) fn print(&self) {
        println!("\n{}", self.scenario);
        for (name, value) in &self.figures {
            println!("  {name:<52} {value:>12}");
        }
        for wrong in &self.wrongs {
            println!("  WRONG: {wrong}");
        }
        println!("  {}", if self.wrongs.is_empty() { "ok" } else { "BROKEN" });
    }
}

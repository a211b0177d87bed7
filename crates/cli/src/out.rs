//! What a command prints: a table or one JSON document on standard output, all else on standard error.

use std::io::{self, Write};

use console::{Alignment, measure_text_width, pad_str};
use serde::Serialize;

use crate::exit::Failure;
use crate::text::clean;

/// Where answers go.
///
/// - A reader who goes away ends the command without a complaint.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Out {
    pub(crate) json: bool,
}

impl Out {
    /// The answer: as JSON if that was asked for, otherwise the text.
    pub(crate) fn answer(
        self,
        document: &impl Serialize,
        text: impl FnOnce() -> String,
    ) -> Result<(), Failure> {
        if self.json { self.json_line(document) } else { self.text(&text()) }
    }

    /// One JSON document on a line of its own.
    pub(crate) fn json_line(self, document: &impl Serialize) -> Result<(), Failure> {
        let mut line = serde_json::to_string(document).map_err(io::Error::from)?;
        line.push('\n');
        write(&line)
    }

    /// Text as it is, which must be clean; its line end is added.
    pub(crate) fn text(self, text: &str) -> Result<(), Failure> {
        let text = text.trim_end_matches('\n');
        if text.is_empty() { Ok(()) } else { write(&format!("{text}\n")) }
    }
}

fn write(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()?;
    Ok(())
}

/// Says something on standard error.
pub(crate) fn say(text: &str) {
    // If nobody listens there either, there is nobody left to tell.
    let _ = writeln!(io::stderr(), "{}", clean(text));
}

/// Rows under named columns, which are always the same and in the same order.
#[derive(Debug)]
pub(crate) struct Table<const N: usize> {
    names: [&'static str; N],
    rows: Vec<[String; N]>,
}

impl<const N: usize> Table<N> {
    pub(crate) fn new(names: [&'static str; N]) -> Self {
        Self { names, rows: Vec::new() }
    }

    pub(crate) fn row(&mut self, cells: [String; N]) {
        self.rows.push(cells.map(|cell| clean(&cell).replace('\n', " ")));
    }

    /// The table, with a line for each row and two spaces between columns.
    pub(crate) fn text(&self) -> String {
        let names = self.names.map(str::to_owned);
        let lines = || std::iter::once(&names).chain(&self.rows);
        let widths: [usize; N] = std::array::from_fn(|column| {
            lines().map(|line| measure_text_width(&line[column])).max().unwrap_or_default()
        });
        let mut text = String::new();
        for line in lines() {
            let cells = line.iter().zip(widths);
            let cells = cells.map(|(cell, width)| pad_str(cell, width, Alignment::Left, None));
            let line = cells.collect::<Vec<_>>().join("  ");
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

/// Names and values, a line each; values of several lines go on below themselves.
#[derive(Debug, Default)]
pub(crate) struct Facts(String);

impl Facts {
    const NAME: usize = 12;

    pub(crate) fn add(&mut self, name: &str, value: &str) -> &mut Self {
        let value = clean(value);
        for (index, line) in value.trim_end().lines().enumerate() {
            let name = if index == 0 { name } else { "" };
            let line = format!("{}  {line}", pad_str(name, Self::NAME, Alignment::Left, None));
            self.0.push_str(line.trim_end());
            self.0.push('\n');
        }
        self
    }

    /// Adds a value where there is one.
    pub(crate) fn some(&mut self, name: &str, value: Option<impl ToString>) -> &mut Self {
        if let Some(value) = value {
            self.add(name, &value.to_string());
        }
        self
    }

    /// Adds a heading and what belongs to it.
    pub(crate) fn section(&mut self, heading: &str, text: &str) -> &mut Self {
        self.0.push('\n');
        self.0.push_str(heading);
        self.0.push('\n');
        for line in text.lines() {
            self.0.push_str("  ");
            self.0.push_str(line);
            self.0.push('\n');
        }
        self
    }

    pub(crate) fn text(&self) -> String {
        self.0.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_stand_under_each_other() {
        let mut table = Table::new(["ID", "NAME", "NOTE"]);
        table.row(["1".into(), "日本".into(), "a\nb".into()]);
        table.row(["1000".into(), "x".into(), String::new()]);
        assert_eq!(table.text(), "ID    NAME  NOTE\n1     日本  a b\n1000  x\n");
    }

    #[test]
    fn nothing_from_outside_reaches_the_terminal_as_an_order() {
        let mut table = Table::new(["A"]);
        table.row(["\u{1b}[2Jx".into()]);
        assert_eq!(table.text(), "A\nx\n");
        assert_eq!(
            Facts::default().add("a", "\u{1b}]0;t\u{7}b\nc").text(),
            "a             b\n              c\n"
        );
    }
}

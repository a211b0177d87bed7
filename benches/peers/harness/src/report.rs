//! The tables, the ratios and the targets; or all of it as JSON.

use serde_json::{Value, json};

use crate::Outcome;
use crate::args::Args;
use crate::figures::{Figures, Statistic};
use crate::target::{Target, Verdict};

/// What is printed of one subject.
#[derive(Debug)]
pub(crate) struct Section {
    pub(crate) title: String,
    pub(crate) tables: Vec<Table>,
    pub(crate) targets: Vec<Target>,
    pub(crate) figures: Figures,
    /// What is to be known when it is read.
    pub(crate) notes: Vec<String>,
}

/// Some columns of a section; who has nothing in any of them has no row.
#[derive(Debug)]
pub(crate) struct Table {
    pub(crate) title: String,
    pub(crate) columns: Vec<Column>,
    /// The peer that the others' ratios are told of.
    pub(crate) ours: &'static str,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Column {
    pub(crate) title: &'static str,
    pub(crate) measure: &'static str,
    pub(crate) statistic: Statistic,
    pub(crate) unit: Unit,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    /// More is better.
    PerSecond,
    /// Microseconds are kept, milliseconds shown; less is better.
    Millis,
}

/// All that was measured.
pub(crate) struct Report {
    machine: String,
    settings: String,
    is_json: bool,
    sections: Vec<Section>,
}

impl Report {
    pub(crate) fn new(machine: String, args: &Args) -> Self {
        let Args { jobs, rounds, seconds, samples, .. } = args;
        let settings = format!(
            "{jobs} jobs in a drain, {seconds} s of enqueueing, {samples} pick-ups; medians of {rounds} rounds in turns"
        );
        Self { machine, settings, is_json: args.json, sections: Vec::new() }
    }

    pub(crate) fn add(&mut self, section: Section) {
        self.sections.push(section);
    }

    /// Whether every measurement could be made.
    pub(crate) fn is_whole(&self) -> bool {
        self.sections.iter().all(|section| section.figures.failures().is_empty())
    }

    pub(crate) fn print(&self) -> Outcome<()> {
        if self.is_json {
            println!("{}", serde_json::to_string_pretty(&self.json())?);
        } else {
            print!("{}", self.text());
        }
        Ok(())
    }

    fn text(&self) -> String {
        let mut text = format!("{}\n{}\n", self.machine, self.settings);
        for section in &self.sections {
            text += &section.text();
        }
        text
    }

    fn json(&self) -> Value {
        json!({
            "machine": self.machine,
            "settings": self.settings,
            "sections": self.sections.iter().map(Section::json).collect::<Vec<_>>(),
        })
    }
}

impl Section {
    fn text(&self) -> String {
        let mut text = format!("\n# {}\n", self.title);
        for table in &self.tables {
            text += &table.text(&self.figures);
        }
        let verdicts: Vec<Vec<String>> = self.verdicts().iter().map(Verdict::row).collect();
        if !verdicts.is_empty() {
            text += "\ntargets\n";
            text += &aligned(&verdicts);
        }
        let setups: Vec<Vec<String>> = self
            .figures
            .peers()
            .iter()
            .map(|(peer, setup)| vec![(*peer).to_owned(), setup.clone()])
            .collect();
        text += "\nhow they are set up\n";
        text += &aligned(&setups);
        for note in &self.notes {
            text += &format!("\n{note}\n");
        }
        for failure in self.figures.failures() {
            text += &format!("\nfailed: {failure}\n");
        }
        text
    }

    fn verdicts(&self) -> Vec<Verdict> {
        self.targets.iter().map(|target| target.judge(&self.figures)).collect()
    }

    fn json(&self) -> Value {
        let figure = |(measure, peer, values): (&str, &str, &[f64])| {
            json!({
                "measure": measure,
                "peer": peer,
                "count": values.len(),
                "median": Statistic::Median.of(values),
                "p99": Statistic::P99.of(values),
            })
        };
        let verdict = |it: &Verdict| {
            let bound = it.bound.to_string();
            json!({ "target": it.says, "ratio": it.ratio, "bound": bound, "met": it.met })
        };
        json!({
            "title": self.title,
            "figures": self.figures.measures().map(figure).collect::<Vec<_>>(),
            "targets": self.verdicts().iter().map(verdict).collect::<Vec<_>>(),
            "peers": self.figures.peers().iter().map(|(peer, setup)| json!({ "peer": peer, "setup": setup })).collect::<Vec<_>>(),
            "failures": self.figures.failures(),
        })
    }
}

impl Table {
    fn text(&self, figures: &Figures) -> String {
        let mut rows = Vec::new();
        for (peer, _) in figures.peers() {
            let cells: Vec<Option<f64>> =
                self.columns.iter().map(|it| figures.get(it.measure, peer, it.statistic)).collect();
            if cells.iter().all(Option::is_none) {
                continue;
            }
            let mut row = vec![(*peer).to_owned()];
            for (column, cell) in self.columns.iter().zip(cells) {
                let ours = figures.get(column.measure, self.ours, column.statistic);
                row.push(cell.map_or_else(|| "–".to_owned(), |cell| column.unit.show(cell)));
                row.push(match (cell, ours) {
                    (Some(cell), Some(ours)) if *peer != self.ours => format!("{:.2}×", ours / cell),
                    _ => String::new(),
                });
            }
            rows.push(row);
        }
        if rows.is_empty() {
            return String::new();
        }
        let mut header = vec![String::new()];
        for column in &self.columns {
            header.extend([column.title.to_owned(), String::new()]);
        }
        rows.insert(0, header);
        let ratios = if figures.peers().iter().any(|(peer, _)| *peer == self.ours) {
            format!("; × is {} divided by the peer", self.ours)
        } else {
            String::new()
        };
        format!("\n{}{ratios}\n{}", self.title, aligned(&rows))
    }
}

impl Unit {
    fn show(self, value: f64) -> String {
        match self {
            Self::PerSecond => thousands(value),
            Self::Millis => format!("{:.2}", value / 1000.0),
        }
    }
}

impl Verdict {
    fn row(&self) -> Vec<String> {
        let verdict = match self.met {
            Some(true) => "met",
            Some(false) => "missed",
            None => "not measured",
        };
        let ratio = self.ratio.map_or_else(|| "–".to_owned(), |ratio| format!("{ratio:.2}"));
        vec![self.says.clone(), ratio, self.bound.to_string(), verdict.to_owned()]
    }
}

/// A whole number with its thousands apart.
fn thousands(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut grouped = String::new();
    for (place, digit) in digits.char_indices() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// Columns under each other: the first to the left, numbers to the right.
fn aligned(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width =
        |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|it| it.chars().count()).max();
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    let is_words = columns == 2;
    let mut text = String::new();
    for row in rows {
        let mut line = String::from(" ");
        for (column, cell) in row.iter().enumerate() {
            let pad = " ".repeat(widths[column].saturating_sub(cell.chars().count()));
            if column == 0 || is_words {
                line += &format!(" {cell}{pad} ");
            } else {
                line += &format!(" {pad}{cell} ");
            }
        }
        text += line.trim_end();
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{aligned, thousands};

    #[test]
    fn thousands_are_set_apart() {
        for (value, shown) in [(0.4, "0"), (999.0, "999"), (1000.0, "1,000"), (1_234_567.0, "1,234,567")] {
            assert_eq!(thousands(value), shown);
        }
    }

    #[test]
    fn numbers_stand_under_each_other() {
        let rows = [["a", "1", "x"], ["long", "10", "xy"]].map(|row| row.map(str::to_owned).to_vec());
        assert_eq!(aligned(&rows), "  a      1   x\n  long  10  xy\n");
    }
}

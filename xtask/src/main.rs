//! The project's chores: `cargo xtask rules`, `cargo xtask names`, `cargo xtask schema [--check]`.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command line speaks to its terminal")]

mod cargo;
mod finding;
mod names;
mod rules;
mod schema;

use std::error::Error;
use std::path::Path;
use std::process::ExitCode;

use finding::Finding;

const USAGE: &str = "\
usage: cargo xtask CHORE
  rules            who may depend on whom, what is set once, one version of each dependency
  names            names without a meaning, paths of one machine, skips that nobody would see
  schema           write docs/schema from the wire types of lime-core
  schema --check   fail if docs/schema is out of date";

/// What a chore gives back, or why it could not be done at all.
type Outcome<T> = Result<T, Box<dyn Error>>;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask is a folder of the workspace");
    let findings = match words[..] {
        ["rules"] => rules::check(root),
        ["names"] => names::check(root),
        ["schema"] => schema::write(root).map(|()| Vec::new()),
        ["schema", "--check"] => schema::check(root),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match findings {
        Ok(findings) => report(&words.join(" "), &findings),
        Err(error) => {
            eprintln!("cargo xtask {}: {error}", words.join(" "));
            ExitCode::FAILURE
        }
    }
}

fn report(chore: &str, findings: &[Finding]) -> ExitCode {
    if findings.is_empty() {
        println!("{chore}: ok");
        return ExitCode::SUCCESS;
    }
    for finding in findings {
        eprintln!("{finding}");
    }
    eprintln!("{chore}: {} to mend", findings.len());
    ExitCode::FAILURE
}

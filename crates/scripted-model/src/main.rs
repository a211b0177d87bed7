//! Serves one script from a file on loopback, until it is stopped.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program tells its user by printing")]

use std::error::Error;
use std::process::ExitCode;

use lime_scripted_model::{Script, ScriptedModel};

const USAGE: &str = "usage: lime-scripted-model --script FILE";

fn main() -> ExitCode {
    match serve() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("lime-scripted-model: {error}");
            let mut source = error.source();
            while let Some(cause) = source {
                eprintln!("  because: {cause}");
                source = cause.source();
            }
            ExitCode::FAILURE
        }
    }
}

fn serve() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    let [flag, file] = arguments.as_slice() else {
        return Err(USAGE.into());
    };
    if flag != "--script" {
        return Err(USAGE.into());
    }
    let script = Script::from_json(&std::fs::read_to_string(file)?)?;
    let model = ScriptedModel::start(script)?;
    println!("ANTHROPIC_BASE_URL={}", model.anthropic_base_url());
    println!("OPENAI_BASE_URL={}", model.openai_base_url());
    loop {
        std::thread::park();
    }
}

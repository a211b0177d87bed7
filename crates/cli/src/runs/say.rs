use std::io::Read;

use lime_core::Id;
use lime_core::ports::Queue;
use lime_core::runs::AgentRun;

use crate::desk::Desk;
use crate::exit::Failure;
use crate::view::InputView;
use crate::whose::Whose;

/// Says something to the agent of a run.
pub(crate) async fn say(desk: &Desk, id: Id<AgentRun>, text: String) -> Result<(), Failure> {
    let text = match text.as_str() {
        "-" => standard_input()?,
        _ => text,
    };
    let whose = Whose::of_run(&desk.storage, desk.tenant.as_ref(), id).await?;
    let input: InputView = desk.storage.say(&whose.scope, id, text).await?.into();
    desk.out.answer(&input, || {
        format!("Kept as {}: the agent of run {id} hears it when it next listens.", input.id)
    })
}

fn standard_input() -> Result<String, Failure> {
    let mut text = String::new();
    std::io::stdin()
        .read_to_string(&mut text)
        .map_err(|error| Failure::usage(format!("standard input cannot be read as UTF-8 text: {error}")))?;
    Ok(text.trim_end().to_owned())
}

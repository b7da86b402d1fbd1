use std::io::Write;

use clap::CommandFactory;
use clap_complete::Shell;

use super::{Flapsam, Outcome};
use crate::error::{Error, Result};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// For which shell, or "man" for the manual's page.
    #[arg(value_parser = of_name)]
    form: Form,
}

/// What is written.
#[derive(Debug, Clone, Copy)]
enum Form {
    Shell(Shell),
    Man,
}

fn of_name(name: &str) -> std::result::Result<Form, String> {
    match name {
        "man" => Ok(Form::Man),
        _ => name
            .parse()
            .map(Form::Shell)
            .map_err(|_| "it is one of bash, elvish, fish, powershell, zsh, man".into()),
    }
}

/// # Errors
/// Standard output cannot be written.
pub fn run(args: &Args) -> Result<Outcome> {
    let mut command = Flapsam::command();
    let mut text = Vec::new();
    match args.form {
        Form::Shell(shell) => clap_complete::generate(shell, &mut command, "flapsam", &mut text),
        Form::Man => clap_mangen::Man::new(command).render(&mut text).map_err(cannot_write)?,
    }
    std::io::stdout().write_all(&text).map_err(cannot_write)?;
    Ok(Outcome::Passed)
}

fn cannot_write(why: std::io::Error) -> Error {
    Error::Message(format!("standard output cannot be written: {why}"))
}

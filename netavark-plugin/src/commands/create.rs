//! `create`: completes and checks the definition of a new network. Nothing is made; the caller writes the result down.

use crate::cli::Global;
use crate::definition::{self, Request};
use crate::error::Result;
use crate::input;
use crate::output::print;

pub(super) fn run(global: &Global) -> Result<()> {
    let request: Request = input::load(global.file.as_deref(), "network create")?;
    let network = definition::on_this_host(request, &global.plugin_directories)?;
    print(&serde_json::to_string(&network)?);
    Ok(())
}

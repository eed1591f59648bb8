//! The macvlan driver: a child with a MAC address of its own.

use super::Request;
use super::child::Child;
use crate::error::{Error, Result};
use crate::plan::ChildKind;
use crate::spec::validate;
use slipway_host::netlink::MacvlanMode;

/// The modes by their names.
const MODES: [(&str, MacvlanMode); 6] = [
    ("", MacvlanMode::Bridge),
    ("bridge", MacvlanMode::Bridge),
    ("private", MacvlanMode::Private),
    ("vepa", MacvlanMode::Vepa),
    ("passthru", MacvlanMode::Passthru),
    ("source", MacvlanMode::Source),
];

/// The driver for one container.
pub(super) fn driver<'a>(request: Request<'a>) -> Child<'a> {
    Child::new(request, kind)
}

fn kind(request: &Request<'_>) -> Result<ChildKind> {
    let word = request.network.option("mode").unwrap_or_default();
    let (_, mode) = MODES
        .into_iter()
        .find(|(name, _)| *name == word)
        .ok_or_else(|| Error::msg(format!("invalid macvlan mode \"{word}\"")))?;
    let broadcast_cutoff = validate::option(request.network.options.as_ref(), "bclim")?;
    Ok(ChildKind::Macvlan { mode, broadcast_cutoff })
}

//! `down`: a namespace leaves a network, or all do and the network is forgotten.
//!
//! Whatever fails, the rest is done, and all failures are told. A member stays on record until nothing of it is
//! left, so that `down` can be tried again.

use super::Surroundings;
use super::cli::Down;
use super::member::Namespace;
use super::state::{Member, Record, Records};
use super::up::{disconnect, request, where_it_is};
use crate::commands::teardown;
use crate::error::{Error, Errors, Result};
use crate::output::print;
use std::ffi::OsStr;

pub(super) fn run(surroundings: &Surroundings<'_>, down: &Down) -> Result<()> {
    let records = Records::lock(surroundings.directory)?;
    let Some(mut record) = records.get(&down.network)? else {
        return Err(Error::msg(format!("there is no network {}", down.network)));
    };
    let leaving = leaving(&record, down.namespace.as_deref())?;
    if down.dry_run {
        let calls: Vec<_> =
            leaving.iter().map(|member| (where_it_is(member), request(&record.network, member))).collect();
        for line in teardown::describe(&surroundings.global(), &calls)? {
            print(&line);
        }
        return Ok(());
    }
    let mut errors = Errors::new();
    for member in &leaving {
        if errors.note(disconnect(surroundings, &record.network, member)).is_some() {
            record.members.retain(|other| other.id != member.id);
            errors.note(records.put(&record));
        }
    }
    if down.namespace.is_none() && record.members.is_empty() {
        errors.note(records.remove(&down.network));
    }
    errors.finish()
}

fn leaving(record: &Record, namespace: Option<&OsStr>) -> Result<Vec<Member>> {
    let Some(word) = namespace else { return Ok(record.members.clone()) };
    let namespace = Namespace::of(word)?;
    let found = record.members.iter().find(|member| member.namespace == namespace.path);
    match found {
        Some(member) => Ok(vec![member.clone()]),
        None => {
            Err(Error::msg(format!("{} is not on network {}", namespace.path.display(), record.network.name)))
        }
    }
}

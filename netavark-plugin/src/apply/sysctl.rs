//! Settings below `/proc/sys/net`, which belong to the namespace of whoever opens the file.
//!
//! A setting is read first and written only if it differs: a `/proc/sys` that is read-only (in a container, say) but
//! has the right values already is no hindrance. One that is a convenience may stay as it is: that is told, and the
//! network works without it.

use super::{Links, Undo, container};
use crate::error::{Context, Result};
use crate::namespaces::Places;
use crate::plan::{Key, On, Op};
use nix::errno::Errno;
use std::fs;
use std::io;

/// Whether a setting is one of the container's namespace.
pub(super) fn is_inside(key: Key) -> bool {
    matches!(key, Key::Of { on: On::Inside, .. })
}

/// A setting with its path.
struct Setting<'a> {
    key: Key,
    path: String,
    value: &'a str,
    optional: bool,
}

/// Writes settings that all belong to the same namespace.
pub(super) fn write_all(ops: &[Op], places: &mut Places, links: &Links, undo: &mut Undo) -> Result<()> {
    let mut settings = Vec::with_capacity(ops.len());
    for op in ops {
        let Op::Sysctl { key, value, optional } = op else { continue };
        let path = match key {
            Key::Host(path) => (*path).to_owned(),
            Key::Of { on, .. } => key.path(&links.get(*on)?.name),
        };
        settings.push(Setting { key: *key, path, value, optional: *optional });
    }
    let mut write = || settings.iter().try_for_each(|setting| write(setting, undo));
    if settings.first().is_some_and(|setting| is_inside(setting.key)) {
        container(places)?.enter(write)?
    } else {
        write()
    }
}

fn write(setting: &Setting<'_>, undo: &mut Undo) -> Result<()> {
    let path = format!("/proc/sys/{}", setting.path);
    match replace(&path, setting.value) {
        Ok(Some(old)) => {
            if matches!(setting.key, Key::Host(_)) {
                undo.setting(path, old);
            }
            Ok(())
        }
        Ok(None) => Ok(()),
        Err(error) if setting.optional && error.kind() == io::ErrorKind::NotFound => {
            log::debug!("this kernel has no setting {}", setting.path);
            Ok(())
        }
        Err(error) if setting.optional && is_out_of_reach(&error) => {
            log::warn!("cannot set {} to {}: {error}; it stays as it is", setting.path, setting.value);
            Ok(())
        }
        Err(error) => Err(error).with_context(|| format!("set sysctl {}", setting.path)),
    }
}

/// Writes `value` if something else is there; returns what was there then.
fn replace(path: &str, value: &str) -> io::Result<Option<String>> {
    let old = fs::read_to_string(path)?;
    if old.trim_end() == value {
        return Ok(None);
    }
    // Not `fs::write`: there is nothing to create or to cut.
    let mut file = fs::OpenOptions::new().write(true).open(path)?;
    io::Write::write_all(&mut file, value.as_bytes())?;
    Ok(Some(old))
}

/// A file system that is read-only, or that belongs to somebody else: we are in a container ourselves.
fn is_out_of_reach(error: &io::Error) -> bool {
    matches!(error.raw_os_error().map(Errno::from_raw), Some(Errno::EROFS | Errno::EACCES | Errno::EPERM))
}

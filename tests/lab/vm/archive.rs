//! The archive that a kernel unpacks into its first file system: cpio, the form `newc` (the kernel's
//! Documentation/driver-api/early-userspace/buffer-format.rst).

/// What stands at a path.
#[derive(Debug, Clone)]
pub(super) enum Entry {
    Dir,
    Link(String),
    File { mode: u32, bytes: Vec<u8> },
}

/// The archive of these, each after the directory it is in. Paths have no slash in front.
pub(super) fn packed<'a>(entries: impl Iterator<Item = (&'a str, &'a Entry)>) -> Vec<u8> {
    let mut archive = Vec::new();
    for (number, (path, entry)) in (1..).zip(entries) {
        match entry {
            Entry::Dir => put(&mut archive, number, path, 0o040_755, &[]),
            Entry::Link(target) => put(&mut archive, number, path, 0o120_777, target.as_bytes()),
            Entry::File { mode, bytes } => put(&mut archive, number, path, 0o100_000 | mode, bytes),
        }
    }
    put(&mut archive, 0, "TRAILER!!!", 0, &[]);
    archive
}

fn put(archive: &mut Vec<u8>, number: usize, path: &str, mode: u32, bytes: &[u8]) {
    let mode = usize::try_from(mode).unwrap_or_default();
    // Number, mode, user, group, links, time, size, four halves of devices, length of the name, checksum.
    let fields = [number, mode, 0, 0, 1, 0, bytes.len(), 0, 0, 0, 0, path.len() + 1, 0];
    archive.extend_from_slice(b"070701");
    for field in fields {
        archive.extend_from_slice(format!("{field:08x}").as_bytes());
    }
    archive.extend_from_slice(path.as_bytes());
    archive.push(0);
    align(archive);
    archive.extend_from_slice(bytes);
    align(archive);
}

fn align(archive: &mut Vec<u8>) {
    archive.resize(archive.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::Cmd;
    use crate::missing;
    use std::time::Duration;

    #[test]
    fn others_unpack_it() {
        if let Some(program) = missing(&["busybox"]) {
            println!("SKIP others_unpack_it: {program} is not installed");
            return;
        }
        let file = Entry::File { mode: 0o750, bytes: b"text\n".to_vec() };
        let entries = [("dir", Entry::Dir), ("dir/file", file), ("link", Entry::Link("dir/file".into()))];
        let archive = packed(entries.iter().map(|(path, entry)| (*path, entry)));
        let dir = tempfile::tempdir().unwrap();
        let script = "cd \"$1\" && busybox cpio -i 2>/dev/null && cat link && stat -c %a dir/file";
        let words = ["sh", "-c", script, "sh"].map(std::ffi::OsString::from);
        let unpack = Cmd::new(words).arg(dir.path()).input(archive);
        assert_eq!(unpack.ok(Duration::from_secs(10)).unwrap().out(), "text\n750\n");
    }
}

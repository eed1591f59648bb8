//! A container image made of the machine's own programs: nothing is fetched.

use std::path::{Path, PathBuf};

use slipway_lab::{Cmd, which};

use crate::LIMIT;

/// A root file system as a tar file: busybox under its usual names, these programs, and the libraries all of them
/// need.
pub(crate) fn tar(dir: &Path, programs: &[&str]) -> PathBuf {
    let tar = dir.join("image.tar");
    let paths: Vec<String> = std::iter::once("busybox")
        .chain(programs.iter().copied())
        .map(|program| which(program).unwrap().to_string_lossy().into_owned())
        .collect();
    let script = format!(
        "set -e
         root={dir}/root; mkdir -p $root/bin $root/etc $root/tmp $root/proc $root/sys $root/dev $root/run $root/var
         for program in {programs}; do
           cp -L $program $root/bin/
           for library in $(ldd $program 2>/dev/null | grep -o '/lib[^ ]*' || :); do
             mkdir -p $root/$(dirname $library); cp -L $library $root/$library
           done
         done
         for name in sh cat ip ping nc httpd wget echo sleep ls grep seq mkdir; do ln -s busybox $root/bin/$name; done
         echo root:x:0:0::/:/bin/sh > $root/etc/passwd
         echo hosts: files dns > $root/etc/nsswitch.conf
         tar -C $root -cf {tar} .",
        dir = dir.display(),
        programs = paths.join(" "),
        tar = tar.display()
    );
    Cmd::new(["sh", "-c", &script]).ok(LIMIT).unwrap();
    tar
}

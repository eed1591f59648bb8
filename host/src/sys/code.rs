//! The program's own code and constants in memory.

use nix::libc::{self, c_int, c_void};

/// Lets go of the pages of code and constants that are mapped by now: those that are needed come back with the next
/// look at them, and what only the start needed stays away. They are the file's pages and remain in the page cache;
/// what falls is the resident size, by half of a megabyte for a small server and by two and more for one with an
/// engine. For a program that lives long, when its start is over.
pub fn let_go() {
    // SAFETY: `visit` keeps to what dl_iterate_phdr(3) promises of its arguments, and needs no data.
    unsafe { libc::dl_iterate_phdr(Some(visit), core::ptr::null_mut()) };
}

/// Sees the program itself, which comes first, and no library behind it.
unsafe extern "C" fn visit(info: *mut libc::dl_phdr_info, _size: usize, _data: *mut c_void) -> c_int {
    // SAFETY: the caller gives a valid description for the time of the call, and with it as many headers as it says.
    let (base, headers) = unsafe {
        let info = &*info;
        (info.dlpi_addr, core::slice::from_raw_parts(info.dlpi_phdr, info.dlpi_phnum.into()))
    };
    for header in headers {
        if header.p_type != libc::PT_LOAD || header.p_flags & libc::PF_W != 0 {
            continue;
        }
        let Some((start, len)) = whole_pages(base + header.p_vaddr, header.p_memsz) else { continue };
        // SAFETY: nobody writes to code and constants, which hold no relocations (the linker's -z text; what is only
        // relocated lies in a segment that may be written), so the file's pages are the same; the range has whole
        // pages of this segment only. A failure changes nothing.
        unsafe { libc::madvise(core::ptr::with_exposed_provenance_mut(start), len, libc::MADV_DONTNEED) };
    }
    1
}

/// The whole pages in so many bytes from an address; `None`: there are none.
fn whole_pages(start: u64, len: u64) -> Option<(usize, usize)> {
    // As large as any Linux has them: a page that is not whole by this measure stays.
    const PAGE: u64 = 1 << 16;
    let (first, end) = (start.checked_next_multiple_of(PAGE)?, start.checked_add(len)? / PAGE * PAGE);
    let len = end.checked_sub(first).filter(|len| *len > 0)?;
    Some((usize::try_from(first).ok()?, usize::try_from(len).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes of files that this process has mapped and in memory.
    fn of_files() -> u64 {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("RssFile:")).unwrap();
        line.trim().trim_end_matches(" kB").trim().parse::<u64>().unwrap() << 10
    }

    #[test]
    fn code_goes_and_comes_back() {
        let before = of_files();
        let_go();
        let after = of_files();
        assert!(after < before, "{before} bytes, then {after}");
        // It runs on, and finds what it has not run before.
        assert_eq!("a b c".split(' ').rev().collect::<Vec<_>>(), ["c", "b", "a"]);
    }

    #[test]
    fn only_whole_pages_go() {
        assert_eq!(whole_pages(0x1_0001, 0x3_0000), Some((0x2_0000, 0x2_0000)));
        assert_eq!(whole_pages(0x1_0000, 0x1_0000), Some((0x1_0000, 0x1_0000)));
        assert_eq!(whole_pages(0x1_0001, 0x1_0000), None);
        assert_eq!(whole_pages(u64::MAX, 1), None);
    }
}

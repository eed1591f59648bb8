//! The C library's heap.

/// Gives the memory that the heap has free back to the system, wherever it lies: free(3) alone gives back only what is
/// free at the heap's end, and one block that is in use there holds back everything before it.
///
/// The time that it takes grows with the memory that is free: about 0.1 ms for a mebibyte. Nothing is done with a C
/// library other than glibc.
pub fn trim() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim takes no pointers, leaves every block that is in use where it is, and may be called by any
    // thread at any time.
    unsafe {
        libc::malloc_trim(0);
    }
}

#[cfg(test)]
#[cfg(target_env = "gnu")]
mod tests {
    use super::*;

    /// Pages of this process that are in memory.
    fn resident() -> usize {
        let told = std::fs::read_to_string("/proc/self/statm").unwrap();
        told.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    #[test]
    fn what_is_free_between_blocks_in_use_goes_back() {
        let before = resident();
        let mut blocks: Vec<Vec<u8>> = (0..4096).map(|_| vec![1; 16 << 10]).collect();
        let full = resident() - before;
        let last = blocks.pop();
        drop(blocks);
        trim();
        let left = resident().saturating_sub(before);
        assert!(left < full / 4, "{left} of {full} pages are still there");
        assert_eq!(last.map(|block| block.len()), Some(16 << 10));
    }
}

//! A process's own memory. Man page: madvise(2).

use std::io;

// SAFETY: symbols of every linked program (ld(1)); only their addresses are taken.
unsafe extern "C" {
    /// First byte of the program, set by the linker.
    static __executable_start: u8;
    /// First byte behind its code, set by the linker.
    static etext: u8;
}

/// Takes the pages of the program's headers, constants and code off this process's account. Those
/// that are used again come back from the page cache, a fraction of a microsecond each; those that
/// only the start needed do not.
///
/// # Errors
/// What `madvise` says.
pub fn drop_program_pages() -> io::Result<()> {
    const PAGE: usize = 4096;
    let start = (&raw const __executable_start).addr().next_multiple_of(PAGE);
    let end = (&raw const etext).addr() & !(PAGE - 1);
    if end <= start {
        return Ok(());
    }
    // SAFETY: the range is the program's own mapping of its file between two symbols of the linker,
    // and holds what is never written: headers, constants and code, without relocations in a
    // static program. Dropped pages read the same when they are mapped again.
    let done = unsafe {
        libc::madvise(
            std::ptr::with_exposed_provenance_mut(start),
            end - start,
            libc::MADV_DONTNEED,
        )
    };
    if done < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_goes_on_without_its_pages() {
        let words = String::from("constants and code come back");
        drop_program_pages().expect("dropped");
        assert_eq!(words, "constants and code come back");
    }
}

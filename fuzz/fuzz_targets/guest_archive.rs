//! Archives as the guest reads them: any bytes. What it makes of them it can write, and reads the
//! same again.
#![no_main]

use std::io::Read;

use libfuzzer_sys::fuzz_target;
use pinfold_guest::archive::header::{Entry, Reader, Type, pad, write};

/// Entries up to the first error, with how much content really came.
fn entries(bytes: &[u8]) -> Vec<(Entry, u64)> {
    let mut reader = Reader::new(bytes);
    let mut found = Vec::new();
    while let Ok(Some(entry)) = reader.entry() {
        let mut content = reader.content(entry.size);
        let came = std::io::copy(&mut content, &mut std::io::sink()).expect("memory can be read");
        drop(content);
        let size = entry.size;
        assert!(entry.path.len() <= 1 << 20 && entry.link.len() <= 1 << 20, "an unbounded name");
        found.push((entry, came));
        if came < size || reader.skip_padding(size).is_err() {
            break;
        }
    }
    found
}

fuzz_target!(|bytes: &[u8]| {
    for (mut entry, came) in entries(bytes) {
        // A name with a NUL byte ends there, and a type is seen in a trailing slash.
        let odd = |name: &[u8]| name.contains(&0) || name.ends_with(b"/") || name.is_empty();
        if entry.kind == Type::Device || odd(&entry.path) || entry.link.contains(&0) {
            continue;
        }
        entry.xattrs.clear();
        if entry.kind == Type::File {
            entry.size = came;
        }
        let mut written = Vec::new();
        write(&mut written, &entry).expect("memory can be written");
        std::io::copy(&mut std::io::repeat(7).take(entry.size), &mut written).expect("memory");
        pad(&mut written, entry.size).expect("memory can be written");
        assert_eq!(written.len() % 512, 0);
        // Ids and times beyond what a header's binary numbers hold are cut.
        let fits = entry.uid < 1 << 55 && entry.gid < 1 << 55;
        if fits {
            let again = entries(&written);
            assert_eq!(again.len(), 1);
            assert_eq!(again[0], (entry.clone(), entry.size));
        }
    }
});

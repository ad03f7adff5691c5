//! The head and chunks of a backup, and the archive inside, from whatever bytes.
#![no_main]

use std::{io::Read, sync::LazyLock};

use libfuzzer_sys::fuzz_target;
use pinfold_backup::{
    BackupKey, Key, Opener, Sealer,
    archive::{Reader, components},
};

static KEY: LazyLock<Key> =
    LazyLock::new(|| Key::File(BackupKey::generate().expect("random bytes")));

fn archive(from: impl Read) {
    let mut reader = Reader::new(from);
    while let Ok(Some(member)) = reader.next() {
        let _checked = components(&member.path);
        let mut content = Vec::new();
        if (&mut reader).take(1 << 20).read_to_end(&mut content).is_err() {
            return;
        }
    }
}

fuzz_target!(|data: &[u8]| {
    // A head of somebody else's making.
    let mut plain = Vec::new();
    if let Ok(opener) = Opener::new(data, &KEY) {
        let _refused = opener.take(1 << 20).read_to_end(&mut plain);
    }
    archive(data);
    // Chunks that were changed behind a good head.
    let mut sealer = Sealer::new(Vec::new(), &KEY).expect("a head");
    std::io::Write::write_all(&mut sealer, data).expect("memory");
    let mut file = sealer.finish().expect("memory");
    if let (Some(at), Some(flip)) = (data.first(), data.get(1)) {
        let at = usize::from(*at) % file.len();
        file[at] ^= flip;
    }
    if let Ok(opener) = Opener::new(file.as_slice(), &KEY) {
        archive(opener);
    }
});

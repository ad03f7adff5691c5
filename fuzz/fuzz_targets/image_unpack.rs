//! Archives of layers: hostile names, links, sizes and compression.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let scratch = std::env::temp_dir().join(format!("pinfold-fuzz-{}", std::process::id()));
    pinfold_image::fuzzing::unpack(bytes, &scratch);
});

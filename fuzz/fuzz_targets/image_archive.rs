//! The tar reader alone: headers, extensions, sparse maps.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| pinfold_image::fuzzing::entries(bytes));

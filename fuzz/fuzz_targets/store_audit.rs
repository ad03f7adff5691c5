//! Segments of the audit log as verification and reading meet them: any bytes; and any event.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pinfold_store::audit::fuzzing;

fuzz_target!(|bytes: &[u8]| {
    fuzzing::segment(bytes);
    fuzzing::event(bytes);
});

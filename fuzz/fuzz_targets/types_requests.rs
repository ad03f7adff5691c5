//! Requests as the API reads them: parsed, then checked.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pinfold_types::{
    api::{ExecInput, RunRequest},
    exec::ExecSpec,
    image::{BuildImage, ImportImage},
    workspace::{CreateWorkspace, ForkWorkspace, UpdateWorkspace},
};
use serde_json::from_slice;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(request) = from_slice::<CreateWorkspace>(bytes) {
        let _ = request.check();
    }
    if let Ok(spec) = from_slice::<ExecSpec>(bytes) {
        let _ = spec.check();
    }
    if let Ok(request) = from_slice::<ImportImage>(bytes) {
        let _ = request.check();
    }
    if let Ok(request) = from_slice::<BuildImage>(bytes) {
        let _ = request.check();
    }
    let _ = from_slice::<UpdateWorkspace>(bytes);
    let _ = from_slice::<ForkWorkspace>(bytes);
    let _ = from_slice::<RunRequest>(bytes);
    let _ = from_slice::<ExecInput>(bytes);
});

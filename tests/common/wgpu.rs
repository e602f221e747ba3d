//! What the tests know of the wgpu device: the adapter, if there is one, and shaders that are being written.

use slm_fast::device::Device;

/// A folder to read shaders from instead of those built in.
const SHADERS: &str = "SLM_FAST_SHADERS";

/// Whether `SLM_REQUIRE` names this.
pub fn is_required(what: &str) -> bool {
    std::env::var("SLM_REQUIRE").is_ok_and(|list| list.split(',').any(|word| word == what))
}

/// Shaders come from the folder that the environment names, if it does.
pub fn read_shaders() {
    #[cfg(feature = "wgpu")]
    if let Some(folder) = std::env::var_os(SHADERS) {
        slm_fast::device::wgpu::read_shaders_from(folder.into());
    }
}

/// The first adapter, software if need be. None, with the reason told, where there is none and none is required.
#[track_caller]
pub fn adapter() -> Option<Device> {
    read_shaders();
    match Device::wgpu(0) {
        Ok(device) => Some(device),
        Err(error) if is_required("wgpu") => panic!("SLM_REQUIRE asks for wgpu: {error}"),
        Err(error) => {
            println!("skipped: {}", error.what);
            None
        }
    }
}

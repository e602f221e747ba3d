//! What the tests know of the wgpu device: the adapter, if there is one, and shaders that are being written.

use slm_fast::device::{Call, Cx, Device, Kernel, Limits, Memory, Shader};

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

/// One kernel on buffers of a test's own.
pub struct Probe {
    pub shader: Shader,
    /// Buffers, in the order of the kernel's arguments.
    pub args: Vec<usize>,
}

impl Call for Probe {
    fn name(&self) -> &'static str {
        "probe"
    }
    fn tiles(&self) -> usize {
        1
    }
    fn scratch_words(&self) -> usize {
        0
    }
    fn flops(&self) -> f64 {
        0.0
    }
    fn kernels(&self) -> Vec<Kernel> {
        Vec::new()
    }
    fn device_scratch(&self) -> usize {
        0
    }
    fn shaders(&self, _: &Limits) -> Vec<Shader> {
        vec![self.shader.clone()]
    }
    fn shader_scratch(&self) -> usize {
        0
    }
    fn args(&self) -> Vec<usize> {
        self.args.clone()
    }
    unsafe fn run(&self, _: &Memory, _: usize, _: &mut Cx<'_>) {
        unreachable!("this is for a wgpu adapter alone");
    }
}

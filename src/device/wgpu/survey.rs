//! What adapters there are, in the order of their numbers: for `--device wgpu:n` and `slm-fast devices`.

use ::wgpu as gpu;

/// One adapter.
#[derive(Debug, Clone, PartialEq)]
pub struct Facts {
    pub ordinal: usize,
    pub name: String,
    /// `Vulkan`, `Metal`, `Dx12`.
    pub backend: String,
    /// The driver's own words.
    pub driver: String,
    /// Whether it is a program that stands in for a GPU.
    pub is_software: bool,
    /// Bytes of the largest cohort.
    pub most_bytes: u64,
    /// Bytes of workgroup memory, and threads of a workgroup.
    pub shared_bytes: u32,
    pub threads: u32,
    /// Fewest and most lanes of a subgroup, where kernels may use them.
    pub subgroups: Option<(u32, u32)>,
}

/// Every adapter of the machine: GPUs first, as the system lists them, then software.
fn adapters() -> Vec<gpu::Adapter> {
    let mut descriptor = gpu::InstanceDescriptor::new_without_display_handle();
    descriptor.backends = gpu::Backends::VULKAN | gpu::Backends::METAL | gpu::Backends::DX12;
    let instance = gpu::Instance::new(descriptor);
    let mut adapters = pollster::block_on(instance.enumerate_adapters(gpu::Backends::all()));
    adapters.sort_by_key(|adapter| match adapter.get_info().device_type {
        gpu::DeviceType::DiscreteGpu => 0,
        gpu::DeviceType::IntegratedGpu => 1,
        gpu::DeviceType::VirtualGpu => 2,
        gpu::DeviceType::Other => 3,
        gpu::DeviceType::Cpu => 4,
    });
    adapters
}

const NONE: &str = "no adapter: no Vulkan, Metal or DX12 driver is installed";

/// The adapter with a number.
///
/// # Errors
/// The reason, in words.
pub fn adapter(ordinal: usize) -> Result<gpu::Adapter, String> {
    let mut adapters = adapters();
    match adapters.len() {
        0 => Err(NONE.to_string()),
        count if ordinal < count => Ok(adapters.swap_remove(ordinal)),
        count => Err(format!("number {ordinal} is not there; this machine has {count}, counted from 0")),
    }
}

/// Largest buffer that one binding can hold, in bytes: the largest cohort.
pub fn most_bytes(limits: &gpu::Limits) -> u64 {
    limits.max_buffer_size.min(limits.max_storage_buffer_binding_size)
}

/// Every adapter of the machine; or why there is none.
///
/// # Errors
/// The reason, in words.
pub fn survey() -> Result<Vec<Facts>, String> {
    let adapters = adapters();
    if adapters.is_empty() {
        return Err(NONE.to_string());
    }
    Ok(adapters.iter().enumerate().map(|(ordinal, adapter)| facts(ordinal, adapter)).collect())
}

fn facts(ordinal: usize, adapter: &gpu::Adapter) -> Facts {
    let (info, limits) = (adapter.get_info(), adapter.limits());
    let has_subgroups = adapter.features().contains(gpu::Features::SUBGROUP);
    Facts {
        subgroups: has_subgroups.then_some((info.subgroup_min_size, info.subgroup_max_size)),
        ordinal,
        name: info.name,
        backend: info.backend.to_string(),
        driver: format!("{} {}", info.driver, info.driver_info).trim().to_string(),
        is_software: info.device_type == gpu::DeviceType::Cpu,
        most_bytes: most_bytes(&limits),
        shared_bytes: limits.max_compute_workgroup_storage_size,
        threads: limits.max_compute_invocations_per_workgroup,
    }
}

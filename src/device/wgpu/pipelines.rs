//! Kernels compiled by the driver, each text once for all queues of a device.

use ::wgpu as gpu;
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

/// Bytes of a launch's own words that a kernel may read.
pub const LAUNCH_BYTES: u64 = 64;

/// A kernel to compile: its entry point and its text.
pub type Source = (String, String);

/// The pipelines of one device.
pub struct Pipelines {
    /// The arena, the running sessions, and a launch's own words: the same for every kernel.
    pub bindings: gpu::BindGroupLayout,
    layout: gpu::PipelineLayout,
    made: Mutex<HashMap<Source, Arc<gpu::ComputePipeline>>>,
    /// Microseconds that callers waited for compilation.
    waited: AtomicUsize,
}

impl Pipelines {
    pub fn new(device: &gpu::Device) -> Pipelines {
        let entry = |binding: u32, ty: gpu::BufferBindingType, has_dynamic_offset: bool| gpu::BindGroupLayoutEntry {
            binding,
            visibility: gpu::ShaderStages::COMPUTE,
            ty: gpu::BindingType::Buffer { ty, has_dynamic_offset, min_binding_size: None },
            count: None,
        };
        let bindings = device.create_bind_group_layout(&gpu::BindGroupLayoutDescriptor {
            label: None,
            entries: &[
                entry(0, gpu::BufferBindingType::Storage { read_only: false }, false),
                entry(1, gpu::BufferBindingType::Storage { read_only: true }, false),
                entry(2, gpu::BufferBindingType::Uniform, true),
            ],
        });
        let layout = device.create_pipeline_layout(&gpu::PipelineLayoutDescriptor {
            label: None,
            bind_group_layouts: &[Some(&bindings)],
            immediate_size: 0,
        });
        Pipelines { bindings, layout, made: Mutex::new(HashMap::new()), waited: AtomicUsize::new(0) }
    }

    /// Kernels compiled so far, and the seconds that callers waited for them.
    pub fn compiled(&self) -> (usize, f64) {
        let made = self.made.lock().expect("nothing panics while pipelines are looked up").len();
        (made, self.waited.load(Ordering::Relaxed) as f64 * 1e-6)
    }

    /// The pipelines of these kernels, in order; what is not there yet is compiled on several threads, since a driver takes
    /// milliseconds to seconds for each.
    ///
    /// # Errors
    /// Position of the first kernel that the driver does not take, and why.
    pub fn find(
        &self,
        device: &gpu::Device,
        sources: &[Source],
    ) -> Result<Vec<Arc<gpu::ComputePipeline>>, (usize, String)> {
        let began = Instant::now();
        let missing: Vec<&Source> = {
            let made = self.made.lock().expect("nothing panics while pipelines are looked up");
            let mut seen = HashSet::new();
            sources.iter().filter(|source| !made.contains_key(*source) && seen.insert(*source)).collect()
        };
        if !missing.is_empty() {
            let next = AtomicUsize::new(0);
            let threads = std::thread::available_parallelism().map_or(1, usize::from).min(missing.len());
            std::thread::scope(|scope| {
                let work = || {
                    while let Some(source) = missing.get(next.fetch_add(1, Ordering::Relaxed)) {
                        let made = self.compile(device, source);
                        let position = || sources.iter().position(|s| s == *source).expect("it came from there");
                        let pipeline = made.map_err(|what| (position(), what))?;
                        let mut made = self.made.lock().expect("nothing panics while pipelines are looked up");
                        made.insert((*source).clone(), Arc::new(pipeline));
                    }
                    Ok(())
                };
                let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
                workers.into_iter().try_for_each(|worker| worker.join().expect("a compiler does not panic"))
            })?;
            self.waited.fetch_add(began.elapsed().as_micros() as usize, Ordering::Relaxed);
        }
        let made = self.made.lock().expect("nothing panics while pipelines are looked up");
        Ok(sources.iter().map(|source| made[source].clone()).collect())
    }

    fn compile(&self, device: &gpu::Device, (entry, text): &Source) -> Result<gpu::ComputePipeline, String> {
        let scope = device.push_error_scope(gpu::ErrorFilter::Validation);
        let descriptor =
            gpu::ShaderModuleDescriptor { label: Some(entry), source: gpu::ShaderSource::Wgsl(text.into()) };
        // SAFETY: kernels stay inside their slices, which the tests hold them to (guards, poison); loops end, since their
        // bounds are constants or words of launches
        let module = unsafe { device.create_shader_module_trusted(descriptor, gpu::ShaderRuntimeChecks::unchecked()) };
        let pipeline = device.create_compute_pipeline(&gpu::ComputePipelineDescriptor {
            label: Some(entry),
            layout: Some(&self.layout),
            module: &module,
            entry_point: Some(entry),
            compilation_options: gpu::PipelineCompilationOptions {
                constants: &[],
                // kernels write before they read
                zero_initialize_workgroup_memory: false,
            },
            cache: None,
        });
        match pollster::block_on(scope.pop()) {
            Some(error) => Err(error.to_string()),
            None => Ok(pipeline),
        }
    }
}

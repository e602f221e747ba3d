//! Recorded calls become dispatches: their texts, compiled and bound once; the first replay kernel by kernel, later ones
//! several to a submission; and the clock of the benches.

use super::Shared;
use super::arena::Arena;
use super::pipelines::{LAUNCH_BYTES, Source};
use super::text::{Slice, compose};
use crate::device::remote::{Host, Remote};
use crate::device::{Call, Layout, Queue, Shader, Times};
use crate::error::{Error, Result};
use ::wgpu as gpu;
use std::sync::Arc;
use std::time::Instant;

/// Most queries of one set, as WebGPU has it.
const QUERIES: usize = 4096;

/// A queue as the device launches it.
pub struct Recorded {
    queue: u64,
    calls: Vec<Dispatches>,
    /// The arena, the running sessions and the words of all launches.
    bindings: gpu::BindGroup,
    /// Every buffer that a replay may write.
    written: Vec<usize>,
    replayed: bool,
}

/// The kernels of one call.
struct Dispatches {
    op: &'static str,
    uses_scratch: bool,
    kernels: Vec<Dispatch>,
}

/// One kernel with what it is launched with.
struct Dispatch {
    entry: String,
    pipeline: Arc<gpu::ComputePipeline>,
    grid: [u32; 3],
    /// Bytes into the buffer of launches' words.
    launch: u32,
}

impl Recorded {
    /// Names of its ops, in order.
    pub fn ops(&self) -> impl Iterator<Item = &'static str> + '_ {
        self.calls.iter().map(|call| call.op)
    }

    /// Encodes all calls, or one, as a pass; the number of dispatches.
    pub fn encode(&self, encoder: &mut gpu::CommandEncoder, only: Option<usize>) -> usize {
        self.encode_timed(encoder, only, None)
    }

    fn encode_timed(
        &self,
        encoder: &mut gpu::CommandEncoder,
        only: Option<usize>,
        timestamp_writes: Option<gpu::ComputePassTimestampWrites<'_>>,
    ) -> usize {
        let mut pass = encoder.begin_compute_pass(&gpu::ComputePassDescriptor { label: None, timestamp_writes });
        let calls = match only {
            Some(number) => &self.calls[number..=number],
            None => &self.calls[..],
        };
        let kernels = calls.iter().flat_map(|call| &call.kernels);
        kernels.map(|kernel| kernel.encode(&mut pass, &self.bindings)).count()
    }
}

impl Dispatch {
    fn encode(&self, pass: &mut gpu::ComputePass<'_>, bindings: &gpu::BindGroup) {
        let [x, y, z] = self.grid;
        pass.set_pipeline(&self.pipeline);
        pass.set_bind_group(0, bindings, &[self.launch]);
        pass.dispatch_workgroups(x, y, z);
    }
}

impl Arena {
    /// Replays a queue for `sessions`: the first time kernel by kernel, each waited for, so that a fault names it; from then
    /// on recorded, submitted with its neighbours, and not waited for.
    pub(super) fn enqueue(&mut self, host: &Host<'_>, queue: &Queue, sessions: &[usize]) -> Result<()> {
        let number = self.number(queue, host.layout)?;
        self.upload(host, sessions)?;
        if self.one_by_one || !self.recorded[number].replayed {
            self.careful(number)?;
        } else {
            self.record_replay(number)?;
        }
        self.recorded[number].replayed = true;
        self.mirror.replayed(&self.recorded[number].written);
        Ok(())
    }

    /// Where a queue is in `recorded`, after recording it if it is new.
    pub(super) fn number(&mut self, queue: &Queue, layout: &Layout) -> Result<usize> {
        let found = self.recorded.iter().position(|recorded| recorded.queue == queue.id());
        if let Some(number) = found
            && self.recorded[number].calls.len() == queue.calls().len()
        {
            return Ok(number);
        }
        let recorded = self.record(queue, layout)?;
        match found {
            // calls were pushed since
            Some(number) => self.recorded[number] = recorded,
            None => self.recorded.push(recorded),
        }
        Ok(found.unwrap_or(self.recorded.len() - 1))
    }

    fn record(&self, queue: &Queue, layout: &Layout) -> Result<Recorded> {
        let shared = &self.shared;
        let (mut sources, mut launches, mut grids) = (Vec::<Source>::new(), Vec::new(), Vec::new());
        for call in queue.calls() {
            let shaders = call.shaders(&self.limits);
            if shaders.is_empty() {
                let what = format!("the op `{}` is not built for the wgpu device with these sizes", call.name());
                return Err(Error::new(shared.place(), what).hint("use `--device cpu`"));
            }
            let slices = self.slices(&**call, layout);
            for shader in &shaders {
                fits(shared, call.name(), shader, layout.sessions)?;
                let composed = compose(call.name(), shader, &slices)
                    .map_err(|what| shared.failed(&what, &format!("composing `{}`", shader.entry)))?;
                grids.push([shader.tiles, layout.sessions as u32, shader.parts]);
                launches.push(composed.launch);
                sources.push((shader.entry.clone(), composed.text));
            }
        }
        let pipelines = shared.pipelines.find(&shared.device, &sources).map_err(|(number, what)| {
            shared.failed(&what, &format!("the driver does not take the kernel `{}`", sources[number].0))
        })?;
        let (bindings, offsets) = self.bind(&launches);
        let mut kernels = sources
            .into_iter()
            .zip(pipelines)
            .zip(grids)
            .zip(offsets)
            .map(|((((entry, _), pipeline), grid), launch)| Dispatch { entry, pipeline, grid, launch });
        let calls = queue.calls().iter().map(|call| Dispatches {
            op: call.name(),
            uses_scratch: call.shader_scratch() > 0,
            kernels: kernels.by_ref().take(call.shaders(&self.limits).len()).collect(),
        });
        let calls = calls.collect();
        let mut written: Vec<usize> = queue.calls().iter().flat_map(|call| call.args()).collect();
        written.sort_unstable();
        written.dedup();
        shared.check(|| "the preparation of a queue".to_string())?;
        Ok(Recorded { queue: queue.id(), calls, bindings, written, replayed: false })
    }

    /// Binds the arena, the sessions and the words of all launches; where the words of each lie.
    fn bind(&self, launches: &[Vec<u32>]) -> (gpu::BindGroup, Vec<u32>) {
        let device = &self.shared.device;
        let step = device.limits().min_uniform_buffer_offset_alignment.max(LAUNCH_BYTES as u32) as usize / 4;
        let mut words = vec![0; step];
        let mut places: Vec<(&[u32], usize)> = Vec::new();
        let mut offsets = Vec::new();
        for launch in launches {
            assert!(4 * launch.len() <= LAUNCH_BYTES as usize, "a launch's own words fit their place");
            let known = places.iter().find(|(words, _)| words == launch).map(|&(_, at)| at);
            let at = known.unwrap_or_else(|| {
                let at = words.len();
                words.extend_from_slice(launch);
                words.resize(at + step, 0);
                places.push((launch, at));
                at
            });
            offsets.push(4 * at as u32);
        }
        let uniform = device.create_buffer(&gpu::BufferDescriptor {
            label: Some("launches"),
            size: 4 * words.len() as u64,
            usage: gpu::BufferUsages::UNIFORM | gpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        });
        self.shared.queue.write_buffer(&uniform, 0, bytemuck::cast_slice(&words));
        let launch = gpu::BufferBinding { buffer: &uniform, offset: 0, size: std::num::NonZero::new(LAUNCH_BYTES) };
        let bindings = device.create_bind_group(&gpu::BindGroupDescriptor {
            label: None,
            layout: &self.shared.pipelines.bindings,
            entries: &[
                gpu::BindGroupEntry { binding: 0, resource: self.words.as_entire_binding() },
                gpu::BindGroupEntry { binding: 1, resource: self.table.as_entire_binding() },
                gpu::BindGroupEntry { binding: 2, resource: gpu::BindingResource::Buffer(launch) },
            ],
        });
        (bindings, offsets)
    }

    /// The slices of a call's arguments and of its scratch.
    fn slices(&self, call: &dyn Call, layout: &Layout) -> Vec<Slice> {
        // the arena's words are counted in 32 bits, so everything in it is
        let slice =
            |at: usize, stride: usize, len: usize| Slice { at: at as u32, stride: stride as u32, len: len as u32 };
        let (at, stride) = self.scratch;
        assert!(call.shader_scratch() <= stride, "a layout has room for the scratch of what is recorded with it");
        let args = call.args().into_iter().map(|id| &layout.entries[id]);
        args.map(|entry| slice(entry.offset, entry.stride, entry.len))
            .chain([slice(at, stride, call.shader_scratch())])
            .collect()
    }

    /// Launches every kernel and waits for it.
    fn careful(&self, number: usize) -> Result<()> {
        let Recorded { calls, bindings, .. } = &self.recorded[number];
        for call in calls {
            if call.uses_scratch {
                self.poison()?;
            }
            for kernel in &call.kernels {
                let ran =
                    self.run(|encoder| kernel.encode(&mut encoder.begin_compute_pass(&Default::default()), bindings));
                ran.map_err(|error| {
                    let what = format!("`{}`: its kernel `{}` failed: {}", call.op, kernel.entry, error.what);
                    Error::new(error.place, what).hint(error.hint)
                })?;
            }
        }
        Ok(())
    }

    /// Measures a queue; see [`Queue::time`].
    pub(super) fn measure(
        &mut self,
        host: &Host<'_>,
        queue: &Queue,
        sessions: &[usize],
        repeats: u32,
    ) -> Result<Times> {
        // the first two replays compile, check and warm up
        for _ in 0..2 {
            self.enqueue(host, queue, sessions)?;
        }
        self.wait()?;
        let number = self.number(queue, host.layout)?;
        let repeats = repeats.max(1);
        let count = self.recorded[number].calls.len() + 1;
        let by_device = self.shared.timestamps && 2 * count <= QUERIES;
        let mut sums = vec![0.0; count];
        for _ in 0..repeats {
            let once = if by_device { self.by_device(number)? } else { self.by_host(number)? };
            sums.iter_mut().zip(once).for_each(|(sum, ms)| *sum += ms / f64::from(repeats));
        }
        let recorded = &self.recorded[number];
        self.mirror.replayed(&recorded.written);
        Ok(Times { replay_ms: sums[0], calls: recorded.ops().zip(sums[1..].iter().copied()).collect() })
    }

    /// Milliseconds of the whole queue, then of each call, by the device's own clock.
    fn by_device(&self, number: usize) -> Result<Vec<f64>> {
        let (recorded, device) = (&self.recorded[number], &self.shared.device);
        let count = 2 * (recorded.calls.len() as u32 + 1);
        let queries =
            device.create_query_set(&gpu::QuerySetDescriptor { label: None, ty: gpu::QueryType::Timestamp, count });
        let ticks = device.create_buffer(&gpu::BufferDescriptor {
            label: Some("ticks"),
            size: 8 * u64::from(count),
            usage: gpu::BufferUsages::QUERY_RESOLVE | gpu::BufferUsages::COPY_SRC,
            mapped_at_creation: false,
        });
        self.run(|encoder| {
            for pass in 0..count / 2 {
                let writes = gpu::ComputePassTimestampWrites {
                    query_set: &queries,
                    beginning_of_pass_write_index: Some(2 * pass),
                    end_of_pass_write_index: Some(2 * pass + 1),
                };
                recorded.encode_timed(encoder, (pass as usize).checked_sub(1), Some(writes));
            }
            encoder.resolve_query_set(&queries, 0..count, &ticks, 0);
        })?;
        let ticks = self.read(&ticks, 2 * count as usize)?;
        let at = |i: usize| u64::from(ticks[2 * i]) | u64::from(ticks[2 * i + 1]) << 32;
        let ms = f64::from(self.shared.queue.get_timestamp_period()) * 1e-6;
        Ok((0..count as usize / 2).map(|i| at(2 * i + 1).wrapping_sub(at(2 * i)) as f64 * ms).collect())
    }

    /// The same by the host's clock, where the device has none.
    fn by_host(&self, number: usize) -> Result<Vec<f64>> {
        let recorded = &self.recorded[number];
        let timed = |only| {
            let began = Instant::now();
            self.run(|encoder| {
                recorded.encode(encoder, only);
            })?;
            Ok(began.elapsed().as_secs_f64() * 1e3)
        };
        std::iter::once(None).chain((0..recorded.calls.len()).map(Some)).map(timed).collect()
    }
}

/// Refuses a kernel that the device cannot launch.
fn fits(shared: &Shared, op: &str, shader: &Shader, sessions: usize) -> Result<()> {
    let most = shared.device.limits().max_compute_workgroups_per_dimension;
    let refuse = |what: String, hint: &str| {
        Err(Error::new(shared.place(), format!("`{op}`: its kernel `{}` {what}", shader.entry)).hint(hint))
    };
    if sessions > most as usize {
        let what = format!("is launched for {sessions} sessions, and a grid has room for {most}");
        return refuse(what, "lower `meta.max_session`");
    }
    if shader.tiles > most || shader.parts > most {
        let what = format!("has a grid of {} x {} blocks, more than {most}", shader.tiles, shader.parts);
        return refuse(what, "lower `env.num_envs`");
    }
    assert!(shader.threads as usize <= shared.limits.threads, "{op}: a block of {} threads", shader.threads);
    assert!(shader.tiles > 0 && shader.parts > 0, "{op}: a grid has blocks");
    Ok(())
}

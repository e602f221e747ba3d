//! Recorded calls become kernel launches: their parameters, checked once; the first replay launch by launch; a graph for
//! every later one; and the clock of the benches.

use super::Shared;
use super::arena::Arena;
use super::driver::{Event, Failure, Function, FunctionAttribute, Graph, Stream};
use crate::device::remote::Host;
use crate::device::{Call, Kernel, Layout, Queue, Times, human_bytes};
use crate::error::{Error, Result};
use std::ffi::c_void;

/// Dynamic shared memory that a block gets without asking.
const SHARED_BYTES: usize = 48 << 10;
/// Limits of every device that the kernels run on.
const MAX_GRID_YZ: usize = 65_535;
const MAX_PARAMETER_BYTES: usize = 4_096;

/// A queue as the device launches it.
pub struct Recorded {
    queue: u64,
    calls: Vec<Launches>,
    /// Every buffer that a replay may write.
    written: Vec<usize>,
    /// Captured when the queue is replayed a second time: one that runs once never pays for it.
    graph: Option<Graph>,
    replayed: bool,
}

impl Recorded {
    /// Names of its ops, in order.
    pub fn ops(&self) -> impl Iterator<Item = &'static str> + '_ {
        self.calls.iter().map(|call| call.op)
    }
}

/// The kernels of one call.
struct Launches {
    op: &'static str,
    uses_scratch: bool,
    kernels: Vec<Launch>,
}

/// One kernel with its parameters.
struct Launch {
    entry: String,
    function: Function,
    grid: [u32; 3],
    threads: u32,
    shared_bytes: u32,
    params: Params,
}

/// A slice argument of a kernel: `Read`, `Write` or `Update` of `kernels/lib/core.cuh`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Slice {
    at: u64,
    /// Words from one session's slice to the next.
    stride: u32,
    /// Words of a slice.
    len: u32,
}

/// The three parameters that every kernel takes.
#[derive(Debug, PartialEq, Eq)]
struct Params {
    /// The members of the shape struct, all of 4 bytes.
    shape: Vec<u32>,
    /// `Sessions`: the address of the table.
    table: u64,
    /// The op's arguments in order, then its scratch.
    slices: Vec<Slice>,
}

impl Params {
    fn bytes(&self) -> usize {
        self.shape.len() * 4 + 8 + self.slices.len() * size_of::<Slice>()
    }

    /// Where the three parameters lie, as the driver wants it.
    fn pointers(&self) -> [*mut c_void; 3] {
        let (shape, slices) = (self.shape.as_ptr(), self.slices.as_ptr());
        [shape.cast_mut().cast(), (&raw const self.table).cast_mut().cast(), slices.cast_mut().cast()]
    }
}

impl Launch {
    fn enqueue(&self, stream: &Stream) -> std::result::Result<(), Failure> {
        stream.launch(self.function, self.grid, self.threads, self.shared_bytes, &mut self.params.pointers())
    }
}

impl Arena {
    /// Replays a queue for `sessions`: the first time launch by launch, each waited for, so that a fault names its kernel;
    /// from then on as a graph, enqueued and not waited for.
    pub(super) fn enqueue(
        &mut self,
        host: &Host<'_>,
        queue: &Queue,
        sessions: &[usize],
        one_by_one: bool,
    ) -> Result<()> {
        self.prepare(host, queue)?;
        self.upload(host, sessions)?;
        self.await_room()?;
        let number = self.number(queue, host.layout)?;
        if one_by_one || !self.recorded[number].replayed {
            self.careful(number)?;
        } else {
            self.launch_graph(number)?;
        }
        self.recorded[number].replayed = true;
        let written = std::mem::take(&mut self.recorded[number].written);
        let noted = self.launched(&written);
        self.recorded[number].written = written;
        noted
    }

    /// Measures a queue; see [`Queue::time`].
    pub(super) fn measure(
        &mut self,
        host: &Host<'_>,
        queue: &Queue,
        sessions: &[usize],
        repeats: u32,
    ) -> Result<Times> {
        // the first two replays compile, check and capture
        for _ in 0..2 {
            self.enqueue(host, queue, sessions, false)?;
        }
        let number = self.number(queue, host.layout)?;
        self.launch_graph(number)?;
        let repeats = repeats.max(1);
        let measured = || -> std::result::Result<Times, Failure> {
            let recorded = &self.recorded[number];
            let graph = recorded.graph.as_ref().expect("it was launched above");
            let mark = || Event::new(&self.shared.context, true);
            let (began, ended) = (mark()?, mark()?);
            began.record(&self.stream)?;
            (0..repeats).try_for_each(|_| graph.launch(&self.stream))?;
            ended.record(&self.stream)?;
            ended.wait()?;
            let replay_ms = began.ms_to(&ended)? / f64::from(repeats);
            let marks = (0..=recorded.calls.len()).map(|_| mark()).collect::<std::result::Result<Vec<_>, _>>()?;
            let mut calls: Vec<(&'static str, f64)> = recorded.ops().map(|op| (op, 0.0)).collect();
            for _ in 0..repeats {
                marks[0].record(&self.stream)?;
                for (call, mark) in recorded.calls.iter().zip(&marks[1..]) {
                    call.kernels.iter().try_for_each(|kernel| kernel.enqueue(&self.stream))?;
                    mark.record(&self.stream)?;
                }
                marks[calls.len()].wait()?;
                for (call, pair) in calls.iter_mut().zip(marks.windows(2)) {
                    call.1 += pair[0].ms_to(&pair[1])? / f64::from(repeats);
                }
            }
            Ok(Times { replay_ms, calls })
        };
        let times = measured().map_err(|failure| self.lost(failure))?;
        let written = self.recorded[number].written.clone();
        self.launched(&written)?;
        Ok(times)
    }

    /// Makes the context this thread's and the queue known; a queue that cannot be launched changes nothing.
    pub fn prepare(&mut self, host: &Host<'_>, queue: &Queue) -> Result<()> {
        self.shared.context.bind().map_err(|failure| self.shared.failed(failure, "entering the device's context"))?;
        self.number(queue, host.layout).map(drop)
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
        let kernels: Vec<Vec<Kernel>> = queue.calls().iter().map(|call| call.kernels()).collect();
        for (call, kernels) in queue.calls().iter().zip(&kernels) {
            if kernels.is_empty() {
                let what = format!("the op `{}` is not built for the cuda device with these sizes", call.name());
                return Err(Error::new(self.shared.place(), what).hint("use `--device cpu`"));
            }
            kernels.iter().try_for_each(|kernel| fits(&self.shared, call.name(), kernel, layout.sessions))?;
        }
        let entries: Vec<&str> = kernels.iter().flatten().map(|kernel| &kernel.entry[..]).collect();
        let functions = self.shared.modules.find(&self.shared.context, &self.shared.place(), &entries)?;
        let mut functions = functions.into_iter();
        let mut calls = Vec::new();
        for (call, kernels) in queue.calls().iter().zip(kernels) {
            let slices = self.slices(&**call, layout)?;
            let mut launches = Vec::new();
            for (kernel, function) in kernels.into_iter().zip(&mut functions) {
                self.allow_shared(call.name(), &kernel, function)?;
                launches.push(Launch {
                    function,
                    grid: [kernel.tiles, layout.sessions as u32, kernel.parts],
                    threads: kernel.threads,
                    shared_bytes: kernel.shared_bytes,
                    params: params(&kernel, self.block.address(self.table), &slices),
                    entry: kernel.entry,
                });
            }
            calls.push(Launches { op: call.name(), uses_scratch: call.device_scratch() > 0, kernels: launches });
        }
        let mut written: Vec<usize> = queue.calls().iter().flat_map(|call| call.args()).collect();
        written.sort_unstable();
        written.dedup();
        Ok(Recorded { queue: queue.id(), calls, written, graph: None, replayed: false })
    }

    /// The slices of a call's arguments and of its scratch.
    fn slices(&self, call: &dyn Call, layout: &Layout) -> Result<Vec<Slice>> {
        let word = |what: &str, words: usize| {
            u32::try_from(words).map_err(|_| {
                let what = format!("{what} of `{}` has {words} words a session, more than kernels count", call.name());
                Error::new(self.shared.place(), what).hint("lower `env.num_envs` or `agent.algorithm.time_horizon`")
            })
        };
        let mut slices = Vec::new();
        for id in call.args() {
            let entry = &layout.entries[id];
            let what = format!("`{}`", entry.name);
            let (stride, len) = (word(&what, entry.stride)?, word(&what, entry.len)?);
            slices.push(Slice { at: self.block.address(entry.offset), stride, len });
        }
        let (at, stride) = self.scratch;
        assert!(call.device_scratch() <= stride, "a layout has room for the scratch of what is recorded with it");
        let (stride, len) = (word("the scratch", stride)?, word("the scratch", call.device_scratch())?);
        slices.push(Slice { at: self.block.address(at), stride, len });
        Ok(slices)
    }

    /// Lets a kernel have more shared memory than a block gets by itself.
    fn allow_shared(&self, op: &str, kernel: &Kernel, function: Function) -> Result<()> {
        let bytes = kernel.shared_bytes as usize;
        if bytes <= SHARED_BYTES {
            return Ok(());
        }
        let attribute = FunctionAttribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
        let allowed = || -> std::result::Result<(), Failure> {
            // another queue may have been given more
            let has = function.get(attribute)?;
            if (bytes as i32) > has { function.set(attribute, bytes as i32) } else { Ok(()) }
        };
        let doing = || format!("`{op}`: asking for {} of shared memory for `{}`", human_bytes(bytes), kernel.entry);
        allowed().map_err(|failure| self.shared.failed(failure, &doing()))
    }

    /// Launches every kernel and waits for it.
    fn careful(&self, number: usize) -> Result<()> {
        for call in &self.recorded[number].calls {
            if call.uses_scratch {
                self.poison().map_err(|failure| self.shared.failed(failure, "filling the scratch"))?;
            }
            for kernel in &call.kernels {
                kernel.enqueue(&self.stream).and_then(|()| self.stream.synchronize()).map_err(|failure| {
                    self.shared.failed(failure, &format!("`{}`: its kernel `{}` failed", call.op, kernel.entry))
                })?;
            }
        }
        Ok(())
    }

    /// Enqueues a replay as a graph, which is captured where there is none yet.
    fn launch_graph(&mut self, number: usize) -> Result<()> {
        if self.recorded[number].graph.is_none() {
            let kernels = || self.recorded[number].calls.iter().flat_map(|call| &call.kernels);
            let captured = self.stream.capture(|| kernels().try_for_each(|kernel| kernel.enqueue(&self.stream)));
            let graph = captured.map_err(|failure| self.shared.failed(failure, "capturing an iteration as a graph"))?;
            self.recorded[number].graph = Some(graph);
        }
        let graph = self.recorded[number].graph.as_ref().expect("it is there now");
        graph.launch(&self.stream).map_err(|failure| self.lost(failure))
    }
}

/// The parameters of a kernel.
fn params(kernel: &Kernel, table: u64, slices: &[Slice]) -> Params {
    let shape = kernel.shape.iter().flat_map(|field| field.words.iter().copied()).collect();
    let params = Params { shape, table, slices: slices.to_vec() };
    assert!(params.bytes() <= MAX_PARAMETER_BYTES, "{}: {} bytes of parameters", kernel.entry, params.bytes());
    params
}

/// Refuses a kernel that the device cannot launch.
fn fits(shared: &Shared, op: &str, kernel: &Kernel, sessions: usize) -> Result<()> {
    let refuse = |what: String, hint: &str| {
        Err(Error::new(shared.place(), format!("`{op}`: its kernel `{}` {what}", kernel.entry)).hint(hint))
    };
    if kernel.shared_bytes as usize > shared.shared_bytes {
        let (needs, has) = (human_bytes(kernel.shared_bytes as usize), human_bytes(shared.shared_bytes));
        return refuse(
            format!("needs {needs} of shared memory a block, and {} has {has}", shared.name),
            "use narrower or fewer `hid_layers` in `agent.net`, or `--device cpu`",
        );
    }
    if sessions > MAX_GRID_YZ {
        return refuse(
            format!("is launched for {sessions} sessions, and a grid has room for {MAX_GRID_YZ}"),
            "lower `meta.max_session`",
        );
    }
    if kernel.parts as usize > MAX_GRID_YZ || kernel.tiles > i32::MAX as u32 {
        return refuse(
            format!("has a grid of {} x {} blocks, more than the device counts", kernel.tiles, kernel.parts),
            "lower `env.num_envs`",
        );
    }
    let threads = kernel.threads;
    assert!(threads.is_multiple_of(32) && (32..=1024).contains(&threads), "{op}: a block of {threads} threads");
    assert!(kernel.tiles > 0 && kernel.parts > 0, "{op}: a grid has blocks");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::Field;

    fn kernel() -> Kernel {
        Kernel {
            entry: "advantage_scan".into(),
            tiles: 3,
            parts: 1,
            threads: 64,
            shared_bytes: 0,
            shape: vec![
                Field { name: "t", words: vec![5] },
                Field { name: "policy", words: vec![1, 2, 0, 1] },
                Field { name: "scale", words: vec![1.5f32.to_bits()] },
            ],
        }
    }

    #[test]
    fn a_kernel_gets_its_shape_the_table_and_a_slice_per_argument() {
        let slices =
            [Slice { at: 0x7000_0000_0040, stride: 32, len: 20 }, Slice { at: 0x7000_0000_1000, stride: 16, len: 1 }];
        let params = params(&kernel(), 0x7000_0000_2000, &slices);
        assert_eq!(params.shape, [5, 1, 2, 0, 1, 1.5f32.to_bits()]);
        assert_eq!(params.bytes(), 24 + 8 + 32);
        let [shape, table, args] = params.pointers();
        // SAFETY: pointers into `params`, read as the kernel declares them
        unsafe {
            assert_eq!(shape.cast::<[u32; 2]>().read(), [5, 1]);
            assert_eq!(table.cast::<u64>().read(), 0x7000_0000_2000);
            // two words of 8 bytes: the address, then stride below and length above, as a struct lays them out
            assert_eq!(
                args.cast::<[u64; 4]>().read(),
                [0x7000_0000_0040, 20 << 32 | 32, 0x7000_0000_1000, 1 << 32 | 16]
            );
        }
    }
}

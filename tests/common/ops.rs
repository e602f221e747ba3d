//! What tests of ops share: inputs of a case, and how far a result is from its definition.

use slm_fast::device::{Call, Cx, Dtype, Kernel, Layout, Limits, Memory, Queue, Shader};
use slm_fast::op::{Arg, Draw, Entry, Role};

/// A NaN that no op computes.
pub const POISON: u32 = 0x7FD5_5555;

/// The words of one session's buffers, in the order of arguments.
pub type Buffers = Vec<Vec<u32>>;

/// Inputs drawn from the declaration, outputs poisoned.
pub fn inputs(entry: &Entry, case: usize, args: &[Arg], seed: usize) -> Buffers {
    let mut draw = Draw::new(1 + 1_000 * case as u32 + seed as u32);
    let mut buffers = (entry.sample)(case, &mut draw);
    for (arg, words) in args.iter().zip(&mut buffers) {
        assert_eq!(arg.len(), words.len());
        if arg.role == Role::Write {
            words.fill(POISON);
        }
    }
    buffers
}

/// A queue with a case's launch alone.
pub fn queue(entry: &Entry, case: usize, layout: &mut Layout) -> Queue {
    let mut queue = Queue::default();
    queue.push(Hard((entry.launch)(case, layout)));
    queue
}

/// The largest `|a - b| / (1 + |b|)`, infinite where one is a number and the other is not.
pub fn distance(dtype: Dtype, a: u32, b: u32) -> f64 {
    if a == b {
        return 0.0;
    }
    let (x, y) = (f64::from(f32::from_bits(a)), f64::from(f32::from_bits(b)));
    match dtype {
        Dtype::U32 => f64::INFINITY,
        Dtype::F32 if x.is_nan() && y.is_nan() && a != POISON && b != POISON => 0.0,
        Dtype::F32 if x == y => 0.0,
        Dtype::F32 if x.is_nan() || y.is_nan() => f64::INFINITY,
        Dtype::F32 => (x - y).abs() / (1.0 + y.abs()),
    }
}

/// A call with NaN in the scratch before each run, and so much work declared that threads are woken for the smallest case.
struct Hard(Box<dyn Call>);

impl Call for Hard {
    fn name(&self) -> &'static str {
        self.0.name()
    }
    fn tiles(&self) -> usize {
        self.0.tiles()
    }
    fn scratch_words(&self) -> usize {
        self.0.scratch_words()
    }
    fn flops(&self) -> f64 {
        1e12
    }
    fn kernels(&self) -> Vec<Kernel> {
        self.0.kernels()
    }
    fn device_scratch(&self) -> usize {
        self.0.device_scratch()
    }
    fn shaders(&self, limits: &Limits) -> Vec<Shader> {
        self.0.shaders(limits)
    }
    fn shader_scratch(&self) -> usize {
        self.0.shader_scratch()
    }
    fn args(&self) -> Vec<usize> {
        self.0.args()
    }
    unsafe fn run(&self, memory: &Memory, s: usize, cx: &mut Cx<'_>) {
        // the scratch of a real run is what earlier ops left there
        let words = self.0.scratch_words();
        cx.scratch[..words].fill(f32::NAN);
        // SAFETY: forwarded
        unsafe { self.0.run(memory, s, cx) }
    }
}

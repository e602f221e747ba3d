//! Every op, declared once. A file here holds the declaration, the plain definition and, where speed asks for it, the
//! fast cpu variant; `kernels/<op>.cu` and `shaders/<op>.wgsl` hold the twins of the gpu devices.
//!
//! An op is written for one session. The leading dimension S of every buffer belongs to the launch: the cpu hands an op
//! the slices of one session, a gpu kernel takes S from its grid.

pub mod actor_grad;
pub mod advantage;
pub mod constants;
pub mod critic_grad;
pub mod crossq_grad;
pub mod episode_returns;
pub mod fold;
pub mod gpu;
pub mod hyper;
pub mod imitate;
pub mod lib;
pub mod log;
pub mod minibatch_grad;
pub mod obs_moments;
pub mod optimize;
pub mod prioritize;
pub mod recurrent_rollout;
pub mod rollout;
pub mod sample;
pub mod schedule;
pub mod sequence_grad;
pub mod sequence_order;
pub mod sequence_td_grad;
pub mod shaders;
pub mod shuffle;
pub mod target;
pub mod td_grad;

use crate::device::{Dtype, Kernel, Kind, Layout, Limits, Shader, Word};
use crate::op::lib::rng;
use std::marker::PhantomData;

/// What an op does with an argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Read,
    /// Written whole, never read before.
    Write,
    /// Read and written.
    Update,
}

/// One argument of an op, with its sizes for a given shape.
#[derive(Debug, Clone)]
pub struct Arg {
    pub name: &'static str,
    pub role: Role,
    pub dtype: Dtype,
    /// Sizes of one session's slice.
    pub dims: Vec<usize>,
    /// As written in the declaration, for messages.
    pub shape: &'static str,
    /// Values a test may put there.
    pub domain: Option<(f64, f64)>,
}

impl Arg {
    /// Words of one session's slice.
    pub fn len(&self) -> usize {
        self.dims.iter().product()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The sizes and choices that are fixed when an op is recorded.
pub trait Shape: Clone + Send + Sync + 'static {
    /// Independent pieces of one session's work; a function of the shape alone, never of the machine.
    fn tiles(&self) -> usize {
        1
    }
    /// Scratch words per thread.
    fn scratch_words(&self) -> usize {
        0
    }
    /// Rough floating-point operations of one session.
    fn flops(&self) -> f64 {
        0.0
    }
    /// What a gpu launches for one execution of the op, in order; every kernel has the session as y of its grid.
    fn kernels(&self) -> Vec<Kernel> {
        Vec::new()
    }
    /// Scratch words per session of those kernels.
    fn device_scratch(&self) -> usize {
        0
    }
    /// What a wgpu adapter with these limits launches for one execution of the op, in order.
    fn shaders(&self, limits: &Limits) -> Vec<Shader> {
        let _ = limits;
        Vec::new()
    }
    /// Scratch words per session of those kernels, whatever the limits.
    fn shader_scratch(&self) -> usize {
        0
    }
    /// Whether devices of a kind take this shape.
    fn on(&self, kind: Kind) -> bool {
        let _ = kind;
        true
    }
    /// Tolerance of this shape, where it is not the declared one.
    fn tolerance(&self, declared: f64) -> f64 {
        declared
    }
    /// Shapes that tests go through: odd sizes, every choice at least once.
    fn cases() -> Vec<Self>;
    /// Fills an argument whose values hang together in a way a plain domain cannot say; false leaves it to the domain.
    fn sample(&self, arg: &str, words: &mut [u32], draw: &mut Draw) -> bool {
        let _ = (arg, words, draw);
        false
    }
}

/// Repeatable numbers for test inputs.
pub struct Draw {
    key: [u32; 2],
    at: u32,
}

impl Draw {
    pub fn new(seed: u32) -> Draw {
        Draw { key: [seed, 0], at: 0 }
    }

    pub fn word(&mut self) -> u32 {
        self.at += 1;
        rng::philox([self.at, 0, rng::Purpose::Test as u32, 0], self.key)[0]
    }

    /// Uniform in (low, high).
    pub fn range(&mut self, low: f64, high: f64) -> f32 {
        (low + (high - low) * f64::from(rng::unit(self.word()))) as f32
    }

    /// Uniform in 0..n.
    pub fn below(&mut self, n: u32) -> u32 {
        ((u64::from(self.word()) * u64::from(n)) >> 32) as u32
    }
}

/// A buffer of which every tile writes its own part.
#[derive(Clone, Copy)]
pub struct Scatter<'a, T> {
    start: *mut T,
    len: usize,
    life: PhantomData<&'a mut [T]>,
}

impl<'a, T: Word> Scatter<'a, T> {
    /// # Safety
    /// `start` holds `len` words for `'a`.
    pub unsafe fn new(start: *mut u32, len: usize) -> Scatter<'a, T> {
        Scatter { start: start.cast(), len, life: PhantomData }
    }

    /// A part of the buffer.
    ///
    /// # Safety
    /// No other tile touches this range, and the caller holds no other slice of it.
    #[inline(always)]
    pub unsafe fn part(&self, range: std::ops::Range<usize>) -> &'a mut [T] {
        assert!(range.start <= range.end && range.end <= self.len, "a tile's part lies inside its buffer");
        // SAFETY: in bounds, and disjoint by the caller's promise
        unsafe { std::slice::from_raw_parts_mut(self.start.add(range.start), range.end - range.start) }
    }

    /// The whole buffer.
    ///
    /// # Safety
    /// The op has one tile.
    pub unsafe fn all(&self) -> &'a mut [T] {
        // SAFETY: forwarded
        unsafe { self.part(0..self.len) }
    }
}

/// What tests and benches see of an op, whatever its types.
pub struct Entry {
    pub name: &'static str,
    /// Number of shapes in [`Shape::cases`].
    pub cases: fn() -> usize,
    /// Whether devices of a kind take a case.
    pub on: fn(case: usize, kind: Kind) -> bool,
    pub args: fn(case: usize) -> Vec<Arg>,
    /// Fills the words of every argument of a case from its domains.
    pub sample: fn(case: usize, draw: &mut Draw) -> Vec<Vec<u32>>,
    /// Runs the plain definition on one session's words.
    pub define: fn(case: usize, words: &mut [Vec<u32>]),
    /// What a gpu launches for a case.
    pub kernels: fn(case: usize) -> Vec<Kernel>,
    /// Scratch words per session of those kernels.
    pub device_scratch: fn(case: usize) -> usize,
    /// What a wgpu adapter launches for a case.
    pub shaders: fn(case: usize, limits: &Limits) -> Vec<Shader>,
    /// A recorded launch of the case, its buffers planned in the layout in the order of its arguments.
    pub launch: fn(case: usize, layout: &mut crate::device::Layout) -> Box<dyn crate::device::Call>,
    /// Largest `|fast - definition| / (1 + |definition|)` that parity allows in a case.
    pub tolerance: fn(case: usize) -> f64,
}

/// Makes room in a layout for the scratch of an op on that kind of device.
pub fn reserve_scratch(shape: &impl Shape, layout: &mut Layout) {
    layout.reserve_scratch(match layout.kind() {
        Kind::Cpu => 0,
        Kind::Cuda => shape.device_scratch(),
        Kind::Wgpu => shape.shader_scratch(),
    });
}

/// Fills an argument from its domain (0..1 where it has none).
pub fn fill(arg: &Arg, words: &mut [u32], draw: &mut Draw) {
    let (low, high) = arg.domain.unwrap_or((0.0, 1.0));
    for word in words {
        *word = match arg.dtype {
            Dtype::F32 => draw.range(low, high).to_bits(),
            Dtype::U32 => low as u32 + draw.below(((high - low) as u32).max(1)),
        };
    }
}

/// Declares an op: its launch struct, its argument structs and its [`Entry`].
///
/// The module supplies `fn define(d: &Shape, a: Args)`, the plain definition, and
/// `fn run(d: &Shape, cx: &mut Cx, a: Tile)`, the variant that launches use: one tile, with every written argument a
/// [`Scatter`]. An op without a faster variant writes `run = define` and then has one tile.
#[macro_export]
macro_rules! op {
    (
        $(#[$doc:meta])*
        $Op:ident($d:ident: $Shape:ty) = $name:literal, within $tol:literal, run = $run:tt {
            $( $role:ident $arg:ident : $t:ident [ $($dim:expr),* $(,)? ] $(in $domain:expr)? ; )*
        }
    ) => {
        $(#[$doc])*
        pub struct $Op {
            pub shape: $Shape,
            $( pub $arg: $crate::device::Buf<$t>, )*
        }

        /// One session's slices, as the definition sees them.
        pub struct Args<'a> { $( pub $arg: $crate::op!(@slice $role 'a $t), )* }

        /// One session's slices, as one tile sees them.
        #[derive(Clone, Copy)]
        pub struct Tile<'a> { $( pub $arg: $crate::op!(@tile $role 'a $t), )* }

        impl $Op {
            /// The arguments and their sizes for a shape.
            pub fn args($d: &$Shape) -> Vec<$crate::op::Arg> {
                let _ = $d;
                vec![ $( $crate::op::Arg {
                    name: stringify!($arg),
                    role: $crate::op!(@role $role),
                    dtype: <$t as $crate::device::Word>::DTYPE,
                    dims: vec![ $( $dim ),* ],
                    shape: stringify!([ $($dim),* ]),
                    domain: $crate::op!(@domain $($domain)?),
                } ),* ]
            }

            /// Checks that every buffer has the declared size, then records the launch.
            pub fn record(self, layout: &mut $crate::device::Layout, queue: &mut $crate::device::Queue) {
                $crate::op::reserve_scratch(&self.shape, layout);
                let lens = [ $( layout.len_of(self.$arg) ),* ];
                for (arg, len) in Self::args(&self.shape).iter().zip(lens) {
                    assert_eq!(len, arg.len(), "{}: `{}` has the declared shape {}", $name, arg.name, arg.shape);
                }
                queue.push(self);
            }

            /// A launch with buffers of its own, planned in the layout in the order of the arguments.
            pub fn alone(shape: $Shape, layout: &mut $crate::device::Layout) -> Self {
                let args = Self::args(&shape);
                let mut args = args.iter();
                $( let $arg = {
                    let arg = args.next().expect("one buffer per argument");
                    layout.buf::<$t>(arg.name, &arg.dims, $crate::device::Keep::Saved)
                }; )*
                $crate::op::reserve_scratch(&shape, layout);
                $Op { shape, $( $arg, )* }
            }

            /// Words for every argument, drawn from its domain.
            pub fn inputs(shape: &$Shape, draw: &mut $crate::op::Draw) -> Vec<Vec<u32>> {
                Self::args(shape).iter().map(|arg| {
                    let mut words = vec![0; arg.len()];
                    if !$crate::op::Shape::sample(shape, arg.name, &mut words, draw) {
                        $crate::op::fill(arg, &mut words, draw);
                    }
                    words
                }).collect()
            }

            /// What tests and benches need.
            pub const ENTRY: $crate::op::Entry = $crate::op::Entry {
                name: $name,
                tolerance: |case| $crate::op::Shape::tolerance(&<$Shape as $crate::op::Shape>::cases()[case], $tol),
                cases: || <$Shape as $crate::op::Shape>::cases().len(),
                on: |case, kind| $crate::op::Shape::on(&<$Shape as $crate::op::Shape>::cases()[case], kind),
                args: |case| Self::args(&<$Shape as $crate::op::Shape>::cases()[case]),
                kernels: |case| $crate::op::Shape::kernels(&<$Shape as $crate::op::Shape>::cases()[case]),
                device_scratch: |case| $crate::op::Shape::device_scratch(&<$Shape as $crate::op::Shape>::cases()[case]),
                shaders: |case, limits| {
                    $crate::op::Shape::shaders(&<$Shape as $crate::op::Shape>::cases()[case], limits)
                },
                sample: |case, draw| Self::inputs(&<$Shape as $crate::op::Shape>::cases()[case], draw),
                define: |case, words| {
                    let shape = &<$Shape as $crate::op::Shape>::cases()[case];
                    let mut words = words.iter_mut();
                    define(shape, Args { $( $arg: {
                        let words = words.next().expect("one buffer per argument");
                        $crate::op!(@cast $role words)
                    }, )* });
                },
                launch: |case, layout| {
                    Box::new(Self::alone(<$Shape as $crate::op::Shape>::cases().swap_remove(case), layout))
                },
            };
        }

        impl $crate::device::Call for $Op {
            fn name(&self) -> &'static str { $name }
            fn tiles(&self) -> usize { $crate::op::Shape::tiles(&self.shape) }
            fn scratch_words(&self) -> usize { $crate::op::Shape::scratch_words(&self.shape) }
            fn flops(&self) -> f64 { $crate::op::Shape::flops(&self.shape) }
            fn kernels(&self) -> Vec<$crate::device::Kernel> { $crate::op::Shape::kernels(&self.shape) }
            fn device_scratch(&self) -> usize { $crate::op::Shape::device_scratch(&self.shape) }
            fn shaders(&self, limits: &$crate::device::Limits) -> Vec<$crate::device::Shader> {
                $crate::op::Shape::shaders(&self.shape, limits)
            }
            fn shader_scratch(&self) -> usize { $crate::op::Shape::shader_scratch(&self.shape) }
            fn args(&self) -> Vec<usize> { vec![ $( self.$arg.id() ),* ] }
            unsafe fn run(&self, memory: &$crate::device::Memory, s: usize, cx: &mut $crate::device::Cx<'_>) {
                // SAFETY: slices of one session inside the arena; tiles write disjoint parts by the op's own promise
                let tile = unsafe { Tile { $( $arg: {
                    let (start, len) = (memory.session_ptr(self.$arg.id(), s), memory.layout().len_of(self.$arg));
                    $crate::op!(@view $role $t, start, len)
                }, )* } };
                $crate::op!(@run $run, &self.shape, cx, tile, [ $( $role $arg ),* ]);
            }
        }
    };
    (@slice read $l:lifetime $t:ident) => { &$l [$t] };
    (@slice $role:ident $l:lifetime $t:ident) => { &$l mut [$t] };
    (@tile read $l:lifetime $t:ident) => { &$l [$t] };
    (@tile $role:ident $l:lifetime $t:ident) => { $crate::op::Scatter<$l, $t> };
    (@role read) => { $crate::op::Role::Read };
    (@role write) => { $crate::op::Role::Write };
    (@role update) => { $crate::op::Role::Update };
    (@domain) => { None };
    (@domain $range:expr) => { { let r = $range; Some((f64::from(r.start), f64::from(r.end))) } };
    (@cast read $words:ident) => { bytemuck::cast_slice(&$words[..]) };
    (@cast $role:ident $words:ident) => { bytemuck::cast_slice_mut(&mut $words[..]) };
    (@view read $t:ident, $start:ident, $len:ident) => { std::slice::from_raw_parts($start.cast::<$t>(), $len) };
    (@view $role:ident $t:ident, $start:ident, $len:ident) => { $crate::op::Scatter::<$t>::new($start, $len) };
    (@run define, $shape:expr, $cx:ident, $tile:ident, [ $( $role:ident $arg:ident ),* ]) => {
        let _ = &$cx;
        define($shape, Args { $( $arg: $crate::op!(@whole $role $tile.$arg), )* })
    };
    (@run run, $shape:expr, $cx:ident, $tile:ident, [ $( $role:ident $arg:ident ),* ]) => { run($shape, $cx, $tile) };
    (@whole read $e:expr) => { $e };
    // SAFETY: an op that runs its definition has one tile
    (@whole $role:ident $e:expr) => { unsafe { $e.all() } };
}

/// Ops in the order a training iteration meets them.
pub static ALL: &[&Entry] = &[
    &schedule::Schedule::ENTRY,
    &rollout::Rollout::ENTRY,
    &recurrent_rollout::RecurrentRollout::ENTRY,
    &log::Log::ENTRY,
    &advantage::Advantage::ENTRY,
    &shuffle::Shuffle::ENTRY,
    &sequence_order::SequenceOrder::ENTRY,
    &minibatch_grad::MinibatchGrad::ENTRY,
    &sequence_grad::SequenceGrad::ENTRY,
    &critic_grad::CriticGrad::ENTRY,
    &actor_grad::ActorGrad::ENTRY,
    &optimize::Optimize::ENTRY,
    &sample::Sample::ENTRY,
    &td_grad::TdGrad::ENTRY,
    &sequence_td_grad::SequenceTdGrad::ENTRY,
    &crossq_grad::CrossqGrad::ENTRY,
    &fold::Fold::ENTRY,
    &prioritize::Prioritize::ENTRY,
    &target::Target::ENTRY,
    &obs_moments::ObsMoments::ENTRY,
    &episode_returns::EpisodeReturns::ENTRY,
    &imitate::Imitate::ENTRY,
];

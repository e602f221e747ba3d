//! Launches of `shaders/lib/soft.wgsl`: the actor and the critics of Soft Actor-Critic, layer by layer.

use crate::device::{Field, Shader};
use crate::op::gpu::{flag, net, policy, renorm, word};
use crate::op::lib::mlp::Mlp;
use crate::op::lib::renorm::Renorm;
use crate::op::lib::soft::SoftNets;

/// Lanes of a block, rows and columns of its tile of a product.
pub const LANES: usize = 64;
const SIDE: usize = 64;
/// Words that a lane gathers.
const GATHERED: usize = 16;
/// Bits of `flags`.
const LAST: usize = 1;
const ADDS_LOSSES: usize = 2;
const OF_ACTOR: usize = 4;

/// Which net a launch is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    Actor,
    /// That many critics side by side.
    Critics(usize),
}

/// Which way a launch goes: what the kernel calls `before` depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Ahead,
    Back,
}

/// Nets on a batch, and where their matrices lie in a session's scratch: words per row of the batch before each.
pub struct Soft<'a> {
    pub nets: &'a SoftNets,
    /// Critics ahead, and kinds of what they see.
    pub critics: usize,
    pub inputs: usize,
    pub start: usize,
    pub batch: usize,
    pub tile_rows: usize,
    /// Critics that see rows and their successors as one batch, and are normalised over it.
    pub joint: Option<&'a Renorm>,
}

/// Words of all layers of one row.
fn layers(mlp: &Mlp) -> usize {
    mlp.hidden.iter().sum::<usize>() + mlp.output
}

/// The same of what is kept of them before the activation.
fn kept(mlp: &Mlp) -> usize {
    if mlp.activation.needs_input() { layers(mlp) } else { 0 }
}

impl Soft<'_> {
    /// Rows of the batch for each that critics see.
    fn copies(&self) -> usize {
        1 + usize::from(self.joint.is_some())
    }
    fn actor_at(&self) -> usize {
        self.nets.obs() + self.inputs * self.copies() * self.nets.critic.input
    }
    fn critics_at(&self) -> usize {
        self.actor_at() + layers(&self.nets.actor)
    }
    /// Words of a critic's layers.
    fn critic_words(&self) -> usize {
        self.copies() * layers(&self.nets.critic)
    }
    fn actor_before(&self) -> usize {
        self.critics_at() + self.critics * self.critic_words()
    }
    fn critics_before(&self) -> usize {
        self.actor_before() + kept(&self.nets.actor)
    }
    /// Words per row before the op's own.
    pub fn rest(&self) -> usize {
        self.critics_before() + self.critics * self.copies() * kept(&self.nets.critic)
    }

    /// Blocks of a net's rows.
    fn blocks(&self, which: Which) -> usize {
        let copies = if which == Which::Actor { 1 } else { self.copies() };
        (copies * self.batch).div_ceil(SIDE)
    }

    /// Members of `struct Shape` that every op has.
    pub fn shape(&self) -> Vec<Field> {
        vec![
            net("actor", Some(&self.nets.actor)),
            self.joint.map_or_else(|| net("critic", Some(&self.nets.critic)), |joint| renorm("critic", joint)),
            policy("policy", Some(self.nets.policy)),
            word("batch", self.batch),
            flag("joint", self.joint.is_some()),
            word("tile_rows", self.tile_rows),
            word("actor_words", layers(&self.nets.actor)),
            word("critic_words", self.critic_words()),
            word("actor_at", self.actor_at()),
            word("critics_at", self.critics_at()),
            word("actor_before", self.actor_before()),
            word("critics_before", self.critics_before()),
            word("rest", self.rest()),
        ]
    }
}

/// An op's launches, in order.
pub struct Launches<'a> {
    pub soft: Soft<'a>,
    /// Members of its `struct Shape`.
    pub shape: Vec<Field>,
    pub all: Vec<Shader>,
}

impl Launches<'_> {
    fn net(&self, which: Which) -> &Mlp {
        if which == Which::Actor { &self.soft.nets.actor } else { &self.soft.nets.critic }
    }

    fn launch(
        &mut self,
        entry: &str,
        (tiles, parts, across): (usize, usize, usize),
        of: (Which, usize, Way),
        adds: bool,
    ) {
        let (which, l, way) = of;
        let mlp = self.net(which);
        let (input, output, mut weight, _) = mlp.offsets()[l];
        let mut copies = 1;
        if let (Some(joint), Which::Critics(_)) = (self.soft.joint, which) {
            weight = joint.places().nth(l).expect("a normalised net has the same layers").weight;
            copies = self.soft.copies();
        }
        let words = |l: usize| copies * mlp.hidden[..l].iter().sum::<usize>();
        let flags = [(l == mlp.hidden.len(), LAST), (adds, ADDS_LOSSES), (which == Which::Actor, OF_ACTOR)];
        let fields = [
            word("start", self.soft.start),
            word("across", across),
            word("flags", flags.iter().map(|&(on, bit)| if on { bit } else { 0 }).sum()),
            word("input", input),
            word("output", output),
            word("weight", weight),
            word("below", if l == 0 { 0 } else { words(l - 1) }),
            word("here", words(l)),
            word("before", if way == Way::Back && l > 0 { words(l - 1) } else { words(l) }),
        ];
        let mut shape = self.shape.clone();
        shape.extend(fields);
        self.all.push(Shader {
            entry: entry.into(),
            swaps: Vec::new(),
            tiles: tiles as u32,
            parts: parts as u32,
            threads: LANES as u32,
            shape,
        });
    }

    /// A kernel with a lane for each of so many numbers, in `parts`; it knows the first layer of a critic.
    pub fn lanes(&mut self, entry: &str, numbers: usize, parts: usize) {
        self.launch(entry, (numbers.div_ceil(LANES), parts, 1), (Which::Critics(parts), 0, Way::Ahead), false);
    }

    /// The same for words that are gathered.
    pub fn gather(&mut self, entry: &str, words: usize, parts: usize) {
        self.lanes(entry, words.div_ceil(GATHERED), parts);
    }

    /// A kernel with a block for so many units of a hidden layer.
    pub fn columns(&mut self, entry: &str, (columns, lanes): (usize, usize), which: Which, l: usize) {
        let tiles = self.net(which).hidden[l].div_ceil(columns);
        self.launch(entry, (tiles, parts(which), 1), (which, l, Way::Ahead), false);
        self.all.last_mut().expect("it was added just now").threads = lanes as u32;
    }

    /// A net ahead: a launch per layer.
    pub fn ahead(&mut self, which: Which) {
        (0..=self.net(which).hidden.len()).for_each(|l| self.layer_ahead(which, l));
    }

    /// One of its layers.
    pub fn layer_ahead(&mut self, which: Which, l: usize) {
        let (blocks, parts) = (self.soft.blocks(which), parts(which));
        if let Some(units) = self.net(which).hidden.get(l) {
            let across = units.div_ceil(SIDE);
            self.launch("soft_forward", (blocks * across, parts, across), (which, l, Way::Ahead), false);
        } else {
            self.launch("soft_outputs", (blocks, parts, 1), (which, l, Way::Ahead), false);
        }
    }

    /// A net back, from slopes at its outputs to those at the units of its first layer; `weights` is the kernel of the
    /// gradients on the way, `None` where nobody asks for them.
    pub fn back(&mut self, which: Which, weights: Option<&str>) {
        (0..=self.net(which).hidden.len()).rev().for_each(|l| self.layer_back(which, l, weights));
    }

    /// One of its layers.
    pub fn layer_back(&mut self, which: Which, l: usize, weights: Option<&str>) {
        let (blocks, parts) = (self.soft.blocks(which), parts(which));
        let tiles = self.soft.batch.div_ceil(self.soft.tile_rows);
        let all = self.net(which).offsets();
        let (input, output, ..) = all[l];
        if let Some(entry) = weights {
            let across = input.div_ceil(SIDE) * output.div_ceil(SIDE);
            self.launch(entry, (tiles * across, parts, across), (which, l, Way::Back), l + 1 == all.len());
        }
        if l > 0 {
            let across = input.div_ceil(SIDE);
            self.launch("soft_backward", (blocks * across, parts, across), (which, l, Way::Back), false);
        }
    }
}

fn parts(which: Which) -> usize {
    if let Which::Critics(count) = which { count } else { 1 }
}

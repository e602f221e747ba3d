//! A cohort: sessions of equal shapes that travel through the same launches.

use crate::algorithm::{self, Buffers, Program};
pub use crate::device::Dtype;
use crate::device::{Device, Keep, Kind, Memory, Queue, Times};
use crate::error::{Error, Result};
use crate::lab::device::require;
use crate::net;
pub use crate::net::Tensor;
use crate::op::hyper::{CLOCK_RING, CLOCK_STEP, fault};
use crate::op::lib::acting::{Explore, to_env};
use crate::op::lib::envs::{EnvFns, TERMINATED, TRUNCATED};
use crate::op::lib::policy::Policy;
use crate::op::log::INTS;
pub use crate::op::log::{COLUMNS, Row};
use crate::op::rollout::RolloutShape;
use crate::op::schedule;
use crate::plan::{Plan, explore};

/// What stopped a session before its last frame.
#[derive(Debug, Clone, PartialEq)]
pub struct Fault {
    /// The op that produced the first non-finite number.
    pub op: &'static str,
    pub frame: u64,
}

/// One session to train: what sets it apart from the others of its cohort.
#[derive(Debug, Clone, Copy)]
pub struct Member<'a> {
    /// Of the same shape in the whole cohort (see [`Plan::has_shape_of`]); its numbers are the session's own.
    pub plan: &'a Plan,
    /// The seed of its trial.
    pub seed: u32,
    /// Its index within its trial.
    pub index: u32,
}

/// S sessions in training.
pub struct Cohort {
    /// Of the first member.
    plan: Plan,
    device: Device,
    memory: Memory,
    program: Program,
    /// Numbers of the buffers that are read at a log point, ascending; they lie side by side.
    log: Vec<usize>,
    /// Numbers of the buffers of a checkpoint, ascending.
    saved: Vec<usize>,
    /// Positions of the sessions still running.
    active: Vec<usize>,
    rows: Vec<Vec<Row>>,
    faults: Vec<Option<Fault>>,
    step: u64,
    /// The vector step with which the replay ring begins, where it is not in the checkpoint that this cohort went on from.
    ring: u64,
}

/// Bytes of device memory that `sessions` sessions of a plan take on a kind of device.
pub fn bytes(plan: &Plan, kind: Kind, sessions: usize) -> usize {
    algorithm::record(plan, kind, sessions).0.bytes()
}

impl Cohort {
    /// The sessions of one trial, by their indices within it.
    ///
    /// # Errors
    /// As [`Cohort::of`].
    pub fn new(plan: &Plan, seed: u32, sessions: &[u32], device: Device) -> Result<Cohort> {
        let members: Vec<Member> = sessions.iter().map(|&index| Member { plan, seed, index }).collect();
        Cohort::of(&members, device)
    }

    /// Allocates every buffer on `device`, draws first parameters and resets the environments of `members`, whose plans
    /// are of one shape. A session's numbers depend on itself alone, never on who travels with it.
    ///
    /// # Errors
    /// Not enough memory; a precision that the device does not have; sizes that its kernels do not fit.
    ///
    /// # Panics
    /// If there is no member, or one has another shape.
    pub fn of(members: &[Member], device: Device) -> Result<Cohort> {
        let plan = members[0].plan;
        assert!(members.iter().all(|member| member.plan.has_shape_of(plan)), "a cohort has one shape");
        require(plan, &device)?;
        let (layout, program) = algorithm::record(plan, device.kind(), members.len());
        let mut memory = layout.allocate_on(&device)?;
        // a gpu's driver compiles kernels while first parameters are drawn: both may take a second
        let params = std::thread::scope(|scope| {
            let draw = |m: &Member| {
                let agent = &m.plan.spec.agent;
                net::init(&m.plan.nets, m.plan.critics.as_ref(), &agent.net, &agent.critic(), [m.seed, m.index])
            };
            let drawn = scope.spawn(move || members.iter().map(draw).collect::<Vec<_>>());
            program.queues().try_for_each(|queue| queue.prepare(&device, &mut memory))?;
            Ok(drawn.join().expect("drawing parameters does not panic"))
        })?;
        for (s, (member, params)) in members.iter().zip(&params).enumerate() {
            begin(member.plan, &program.buffers, &mut memory, s, [member.seed, member.index]);
            memory.write(program.buffers.params, s).copy_from_slice(params);
            // a target net starts as a copy of what it follows
            let target = memory.write(program.buffers.replay.target, s);
            target.copy_from_slice(&params[params.len() - target.len()..]);
        }
        let room = memory.layout().len_of(program.buffers.row_ints) / INTS;
        let b = program.buffers;
        let mut log = vec![b.clock.id(), b.fault.id(), b.row_count.id(), b.row_ints.id(), b.row_nums.id()];
        log.sort_unstable();
        let entries = memory.layout().entries().iter().enumerate();
        let saved = entries.filter(|(_, entry)| entry.keep == Keep::Saved && entry.len > 0).map(|(id, _)| id).collect();
        Ok(Cohort {
            plan: plan.clone(),
            device,
            memory,
            program,
            log,
            saved,
            active: (0..members.len()).collect(),
            // one by one: a clone of an empty vector has no room
            rows: members.iter().map(|_| Vec::with_capacity(room)).collect(),
            faults: vec![None; members.len()],
            step: 0,
            ring: 0,
        })
    }

    /// Collects one rollout and learns from it, for every session still running. Allocates nothing. True at a log point,
    /// where there may be rows and faults; between two, nothing is read back, and a gpu is not waited for.
    ///
    /// # Errors
    /// A gpu that failed.
    pub fn iterate(&mut self) -> Result<bool> {
        self.rows.iter_mut().for_each(Vec::clear);
        if self.done() {
            return Ok(false);
        }
        let begins = self.step;
        self.step = self.plan.next(begins);
        let queue = if begins < self.plan.warmup() as u64 {
            self.program.warmup.as_ref().expect("a run with a warm-up has its queue")
        } else if self.step - begins == self.plan.horizon as u64 {
            match &self.program.refill {
                Some(refill) if begins < self.ring + self.plan.warmup() as u64 => refill,
                _ => &self.program.iteration,
            }
        } else {
            self.program.tail.as_ref().expect("a run that does not end on a whole iteration has a tail")
        };
        if let Err(error) = queue.replay(&self.device, &mut self.memory, &self.active) {
            self.step = begins;
            return Err(error);
        }
        let is_log_point = self.is_log_point(begins);
        if is_log_point {
            self.memory.fetch(&self.log, 0..self.memory.sessions())?;
            for &s in &self.active {
                let clock = self.memory.read(self.program.buffers.clock, s)[CLOCK_STEP];
                assert_eq!(u64::from(clock), self.step, "the device and the host count the same vector steps");
                read_rows(&self.memory, &self.program.buffers, s, self.plan.num_envs, &mut self.rows[s]);
            }
            self.stop_faulty();
        }
        Ok(is_log_point)
    }

    /// Whether the vector steps from `begins` to now hold one that is due a log row: what the op `log` decides too.
    fn is_log_point(&self, begins: u64) -> bool {
        let frame = |step: u64| step * u64::from(self.plan.num_envs);
        let (before, now) = (frame(begins), frame(self.step));
        let (every, last) = (self.plan.log_frequency, self.plan.max_frame);
        now / every > before / every || (before < last && last <= now)
    }

    /// Sessions with a non-finite number leave the cohort at a log point; the others do not notice.
    fn stop_faulty(&mut self) {
        for &s in &self.active {
            self.faults[s] = fault_of(&self.memory, &self.program.buffers, s, &self.plan);
        }
        self.active.retain(|&s| self.faults[s].is_none());
    }

    /// Takes sessions out where a search stops their trials; the others do not notice.
    pub fn retire(&mut self, positions: &[usize]) {
        self.active.retain(|s| !positions.contains(s));
    }

    /// Whether session position `s` is still running.
    pub fn is_active(&self, s: usize) -> bool {
        self.active.contains(&s)
    }

    /// Frames done so far (equal in all sessions still running); on a gpu the last few iterations may still be under way.
    pub fn frame(&self) -> u64 {
        self.step * u64::from(self.plan.num_envs)
    }

    /// Frames that fill the replay memory before this cohort learns on, where its checkpoint held none.
    pub fn refill_frames(&self) -> u64 {
        let (warmup, horizon) = (self.plan.warmup() as u64, self.plan.horizon as u64);
        let lost = self.program.refill.is_some() && self.ring > 0;
        if lost { warmup.next_multiple_of(horizon) * u64::from(self.plan.num_envs) } else { 0 }
    }

    /// Waits until everything up to [`Cohort::frame`] is done.
    ///
    /// # Errors
    /// A gpu that failed.
    pub fn wait(&self) -> Result<()> {
        self.memory.wait()
    }

    /// Measures a whole iteration and each of its calls, for benches. The cohort has trained on unseen by its own count,
    /// and is good for nothing else afterwards.
    ///
    /// # Errors
    /// A gpu that failed.
    pub fn time(mut self, repeats: u32) -> Result<Times> {
        self.program.iteration.time(&self.device, &mut self.memory, &self.active, repeats)
    }

    /// True when `max_frame` is reached or no session is left.
    pub fn done(&self) -> bool {
        self.step >= self.plan.steps() || self.active.is_empty()
    }

    /// Where this cohort runs.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Log rows that the last `iterate` produced for session position `s` (0..S), in frame order; none from after a fault.
    pub fn rows(&self, s: usize) -> &[Row] {
        &self.rows[s]
    }

    /// Set once a loss or parameter of session position `s` was not finite; that session no longer moves.
    pub fn fault(&self, s: usize) -> Option<&Fault> {
        self.faults[s].as_ref()
    }

    /// The plan this cohort runs.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// State words of environment `n` of session position `s`, for rendering.
    pub fn env_state(&self, s: usize, n: usize) -> &[f32] {
        let k = self.plan.env.state_len;
        &self.memory.read(self.program.buffers.env_state, s)[n * k..(n + 1) * k]
    }

    /// Everything the next `iterate` reads, each `[S, ..]`: the resumable checkpoint.
    ///
    /// # Errors
    /// A gpu that failed.
    pub fn snapshot(&self) -> Result<Vec<Tensor>> {
        let sessions = self.memory.sessions();
        self.memory.fetch(&self.saved, 0..sessions)?;
        let tensor = |&id: &usize| {
            let entry = &self.memory.layout().entries()[id];
            let mut shape = vec![sessions];
            shape.extend_from_slice(&entry.shape);
            let mut words = Vec::with_capacity(sessions * entry.len);
            (0..sessions).for_each(|s| words.extend_from_slice(self.memory.words(id, s)));
            Tensor { name: entry.name.clone(), dtype: entry.dtype, shape, words }
        };
        Ok(self.saved.iter().map(tensor).collect())
    }

    /// Continues from a snapshot of the same plan.
    ///
    /// # Errors
    /// Names the tensor that is missing or has another shape; nothing is changed then. A gpu that failed.
    pub fn restore(&mut self, tensors: &[Tensor]) -> Result<()> {
        let ours = self.snapshot()?;
        let mut found = Vec::with_capacity(ours.len());
        for want in &ours {
            let tensor = tensors.iter().find(|t| t.name == want.name).ok_or_else(|| {
                Error::new(&want.name, "the checkpoint has no such tensor")
                    .hint("it was written by another spec or version")
            })?;
            if (tensor.dtype, &tensor.shape) != (want.dtype, &want.shape) || tensor.words.len() != want.words.len() {
                return Err(Error::new(
                    &want.name,
                    format!(
                        "the checkpoint holds {:?} {:?}, this spec needs {:?} {:?}",
                        tensor.dtype, tensor.shape, want.dtype, want.shape
                    ),
                )
                .hint("resume with the spec that the checkpoint was written by"));
            }
            found.push(tensor);
        }
        let sessions = self.memory.sessions();
        for tensor in found {
            let id = self
                .memory
                .layout()
                .entries()
                .iter()
                .position(|e| e.name == tensor.name)
                .expect("it came from the layout");
            let len = tensor.words.len() / sessions;
            for s in 0..sessions {
                self.memory.words_mut(id, s).copy_from_slice(&tensor.words[s * len..(s + 1) * len]);
            }
        }
        let clock = |s: usize| u64::from(self.memory.read(self.program.buffers.clock, s)[CLOCK_STEP]);
        self.step = (0..sessions).map(clock).max().unwrap_or(0);
        // sessions that left stay where they left, with an older clock, or at this very step if it was a log point
        let is_log_point = self.step > 0 && self.is_log_point(self.plan.before(self.step));
        let b = &self.program.buffers;
        for s in 0..sessions {
            let has_left = is_log_point || clock(s) < self.step;
            self.faults[s] = if has_left { fault_of(&self.memory, b, s, &self.plan) } else { None };
        }
        let runs = |&s: &usize| self.faults[s].is_none() && clock(s) == self.step;
        self.active = (0..sessions).filter(runs).collect();
        if self.program.refill.is_some() {
            self.ring = self.step;
            let step = u32::try_from(self.step).expect("a session counts its steps in 32 bits");
            (0..sessions).for_each(|s| self.memory.write(self.program.buffers.clock, s)[CLOCK_RING] = step);
        }
        self.rows.iter_mut().for_each(Vec::clear);
        Ok(())
    }

    /// What a model file of session position `s` holds: named layers (`actor.0.weight` `[out, in]` as in PyTorch,
    /// `actor.0.bias`, `critic.2.weight`, `log_std`) and the observation normaliser `[2, O]` where there is one.
    ///
    /// # Errors
    /// A gpu that failed.
    pub fn model(&self, s: usize) -> Result<Vec<Tensor>> {
        let b = &self.program.buffers;
        let mut parts = [b.params.id(), b.normalizer.id(), b.replay.norm.id()];
        parts.sort_unstable();
        self.memory.fetch(&parts, s..s + 1)?;
        let critics = self.plan.critics.as_ref();
        let mut tensors = net::to_tensors(&self.plan.nets, critics, self.memory.read(b.params, s));
        tensors.extend(critics.into_iter().flat_map(|net| net::norm_tensors(net, self.memory.read(b.replay.norm, s))));
        if self.plan.spec.env.normalize_obs {
            let normalizer = self.memory.read(b.normalizer, s);
            tensors.push(Tensor::f32("normalizer", &[2, self.plan.env.obs_len], normalizer));
        }
        Ok(tensors)
    }
}

/// Frame 0 of one session: its seed and numbers, its environments' first states, wrappers that change nothing yet.
fn begin(plan: &Plan, b: &Buffers, memory: &mut Memory, s: usize, key: [u32; 2]) {
    memory.write(b.seed, s).copy_from_slice(&key);
    memory.write(b.hyper, s).copy_from_slice(&plan.hyper);
    if let Some(imitation) = &b.imitation {
        memory.write(imitation.hyper, s).copy_from_slice(&plan.imitation_hyper());
    }
    memory.write(b.replay.norm, s).copy_from_slice(&plan.critics.as_ref().map_or(Vec::new(), net::init_norm));
    memory.write(b.normalizer, s).copy_from_slice(&plan.first_normalizer());
    memory.write(b.replay.top, s)[0] = plan.first_priority();
    let env = EnvFns::new(plan.env);
    for (n, state) in memory.write(b.env_state, s).chunks_exact_mut(plan.env.state_len).enumerate() {
        env.plain_reset(state, key, n as u32, 0);
    }
}

/// What stopped a session, as its own words say.
fn fault_of(memory: &Memory, b: &Buffers, s: usize, plan: &Plan) -> Option<Fault> {
    let words = memory.read(b.fault, s);
    let frame = u64::from(words[fault::STEP]) * u64::from(plan.num_envs);
    let op = match words[fault::OP] {
        0 => return None,
        fault::GRADIENT => plan.gradient_op(words[fault::GROUP] as usize),
        _ => "optimize",
    };
    Some(Fault { op, frame })
}

/// The rows of a session's last rollout, without those from after a fault, which stopped the session.
fn read_rows(memory: &Memory, b: &Buffers, s: usize, num_envs: u32, rows: &mut Vec<Row>) {
    let fault = memory.read(b.fault, s);
    let last = if fault[fault::OP] != 0 { fault[fault::STEP] } else { u32::MAX };
    let count = memory.read(b.row_count, s)[0] as usize;
    let (ints, nums) = (memory.read(b.row_ints, s), memory.read(b.row_nums, s));
    let width = COLUMNS.len() - 4;
    for r in (0..count).filter(|r| ints[r * INTS] <= last) {
        let mut row = [0.0; COLUMNS.len()];
        let [t, opt_step, episodes] = [0, 1, 2].map(|i| f64::from(ints[r * INTS + i]));
        row[..4].copy_from_slice(&[t * f64::from(num_envs), t, opt_step, episodes]);
        row[4..].iter_mut().zip(&nums[r * width..]).for_each(|(to, &from)| *to = f64::from(from));
        rows.push(row);
    }
}

/// One session that acts and does not learn: `enjoy`, evaluation, rendering.
pub struct Player {
    plan: Plan,
    env: EnvFns,
    device: Device,
    memory: Memory,
    queue: Queue,
    b: Buffers,
}

/// What one step of a [`Player`] did.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// The state after the step (before an auto-reset), in the env's own words.
    pub state: Vec<f32>,
    /// The action in the env's own units.
    pub action: Vec<f32>,
    pub reward: f32,
    pub terminated: bool,
    pub truncated: bool,
}

impl Player {
    /// A player of one environment with the parameters of a model file (see [`Cohort::model`]).
    ///
    /// # Errors
    /// Names the tensor of the model that is missing or has another shape.
    pub fn new(plan: &Plan, model: &[Tensor], seed: u32, deterministic: bool) -> Result<Player> {
        let plan = Plan {
            num_envs: 1,
            horizon: 1,
            minibatch: 1,
            off_policy: None,
            imitation: None,
            critics: None,
            params: plan.nets.len(),
            ..plan.clone()
        };
        let hint = "the model was trained with other nets or in another environment than its spec says";
        let params = net::from_tensors(&plan.nets, model).map_err(|what| Error::new("model", what).hint(hint))?;
        let (mut layout, b) = algorithm::buffers(&plan, Kind::Cpu, 1);
        let env = EnvFns::new(plan.env);
        let explore = if deterministic { Explore::Greedy } else { explore(&plan.spec.agent.algorithm) };
        let shape = RolloutShape {
            explore,
            groups: plan.groups.len(),
            limit: plan.time_limit(),
            normalize_obs: plan.filters_obs(),
            ..RolloutShape::new(env, Some(plan.nets.clone()), 1, 1)
        };
        let mut queue = Queue::default();
        algorithm::record_rollout(&b, shape, &mut layout, &mut queue);
        let mut memory = layout.allocate()?;
        begin(&plan, &b, &mut memory, 0, [seed, 0]);
        memory.write(b.params, 0).copy_from_slice(&params);
        // it explores as at the end of its training
        if let Some(schedule) = plan.spec.agent.algorithm.explore_var_spec() {
            memory.write(b.schedule, 0)[schedule::EXPLORE] = schedule.end_val() as f32;
        }
        if plan.spec.env.normalize_obs {
            let shape = [2, plan.env.obs_len];
            let normalizer = model.iter().find(|t| t.name == "normalizer" && t.shape == shape);
            let normalizer = normalizer.ok_or_else(|| Error::new("model", "no tensor `normalizer`").hint(hint))?;
            memory.write(b.normalizer, 0).copy_from_slice(normalizer.values());
        }
        Ok(Player { plan, env, device: Device::cpu(1), memory, queue, b })
    }

    /// Acts once; after an episode's end the next step begins a new one.
    pub fn step(&mut self) -> Step {
        let mut state = self.memory.read(self.b.env_state, 0).to_vec();
        self.queue.replay(&self.device, &mut self.memory, &[0]).expect("the cpu launches whatever is recorded");
        self.memory.write(self.b.clock, 0)[CLOCK_STEP] += 1;
        let squashed = matches!(self.plan.nets.policy, Policy::Gaussian { squashed: true, .. });
        let taken = self.memory.read(self.b.action, 0).iter().enumerate();
        let action: Vec<f32> = taken.map(|(i, &x)| to_env(&self.plan.env.action_space, squashed, i, x)).collect();
        // the rollout has already begun the next episode; the same step once more gives the true last state
        self.env.plain_step(&mut state, &action);
        let ended = self.memory.read(self.b.ended, 0)[0];
        Step {
            state,
            action,
            reward: self.memory.read(self.b.reward, 0)[0],
            terminated: ended & TERMINATED != 0,
            truncated: ended & TRUNCATED != 0,
        }
    }

    /// State words of the environment as it is now.
    pub fn state(&self) -> &[f32] {
        self.memory.read(self.b.env_state, 0)
    }
}

#[cfg(test)]
mod tests;

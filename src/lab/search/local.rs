//! Jobs of a search on this machine: side by side where they leave room for each other, the longest first.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::job::{Job, News, State};
use super::{Engine, Task, lock};
use crate::device::{Device, Kind};
use crate::error::Result;
use crate::lab::cohort;
use crate::lab::device::{self, room};
use crate::plan::Plan;
use crate::spec::DeviceChoice;

/// Cohorts that share a gpu: while one is at a log point, the others keep it busy.
const GPU_LANES: usize = 4;
/// Share of the free memory that cohorts may take; the rest is for data frames, files and other programs.
const SHARE: f64 = 0.5;

/// Threads and devices of this process.
pub struct Local {
    site: Site,
    threads: usize,
    kind: Kind,
    /// Bytes that all cohorts together may take, and one of them.
    room: usize,
    most: usize,
    /// Jobs that keep their memory while they wait, by id.
    waiting: BTreeMap<u32, Job>,
    /// Seconds that a frame of a session took in each job, by id.
    speed: BTreeMap<u32, f64>,
}

/// Where every job works.
struct Site {
    choice: DeviceChoice,
    checkpoint_every: Duration,
}

impl Local {
    /// The engine of an opened device.
    pub fn new(device: &Device, threads: usize, checkpoint_every: Duration) -> Local {
        let room = room(device);
        Local {
            site: Site { choice: device::choice(device), checkpoint_every },
            threads: if threads == 0 { std::thread::available_parallelism().map_or(1, usize::from) } else { threads },
            kind: device.kind(),
            room: (room.all as f64 * SHARE) as usize,
            most: (room.all as f64 * SHARE).min(room.one as f64) as usize,
            waiting: BTreeMap::new(),
            speed: BTreeMap::new(),
        }
    }

    /// Jobs side by side, and the cpu threads of each.
    fn lanes(&self, tasks: &[Task]) -> (usize, usize) {
        let lanes = match self.kind {
            Kind::Cpu => {
                let widest = tasks.iter().map(Task::sessions).max().unwrap_or(1);
                self.threads / widest.clamp(1, self.threads)
            }
            Kind::Cuda | Kind::Wgpu => GPU_LANES,
        };
        let lanes = lanes.clamp(1, tasks.len().max(1));
        (lanes, (self.threads / lanes).max(1))
    }

    /// Seconds that a task will take, as far as its shape or its sizes tell.
    fn cost(&self, task: &Task) -> f64 {
        let plan = &task.trials[0].plan;
        let frames = task.order.until as f64 * task.sessions() as f64;
        let guess = plan.params as f64 * (1.0 + plan.rows_per_frame()) * 1e-9;
        frames * self.speed.get(&task.id).copied().unwrap_or(guess)
    }

    fn bytes(&self, task: &Task) -> usize {
        cohort::bytes(&task.trials[0].plan, self.kind, task.sessions())
    }
}

impl Engine for Local {
    fn most_sessions(&self, plan: &Plan, _: usize) -> usize {
        let one = cohort::bytes(plan, self.kind, 1).max(1);
        // guards and tables grow with the sessions too: what is left of the division is theirs
        (self.most / one).saturating_sub(1).max(1)
    }

    fn advance(
        &mut self,
        tasks: &[Task],
        stop: &Arc<AtomicBool>,
        tell: &(dyn Fn(u32, News) + Sync),
    ) -> Result<Vec<State>> {
        let (lanes, threads) = self.lanes(tasks);
        let keep = tasks.iter().map(|task| self.bytes(task)).sum::<usize>() <= self.room;
        let mut order: Vec<usize> = (0..tasks.len()).collect();
        order.sort_by(|&a, &b| self.cost(&tasks[b]).total_cmp(&self.cost(&tasks[a])).then(a.cmp(&b)));
        let queue = Mutex::new(order.into_iter());
        let waiting = Mutex::new(std::mem::take(&mut self.waiting));
        let speed = Mutex::new(std::mem::take(&mut self.speed));
        let states = Mutex::new(vec![State::Interrupted; tasks.len()]);
        let failed = AtomicBool::new(false);
        let site = &self.site;
        let work = || -> Result<()> {
            loop {
                let next = lock(&queue).next();
                let Some(at) = next.filter(|_| !failed.load(Ordering::Relaxed) && !stop.load(Ordering::Relaxed)) else {
                    return Ok(());
                };
                let task = &tasks[at];
                let kept = lock(&waiting).remove(&task.id);
                let done = site.carry_out(task, kept, threads, stop, tell).and_then(|(state, job)| {
                    if let Some(job) = job {
                        let frames = task.sessions() as f64 * task.trials[0].plan.rows() as f64;
                        lock(&speed).insert(task.id, job.iteration_s / frames);
                        if keep {
                            lock(&waiting).insert(task.id, job);
                        } else {
                            job.park()?;
                        }
                    }
                    lock(&states)[at] = state;
                    Ok(())
                });
                if done.is_err() {
                    // the others save what they have
                    failed.store(true, Ordering::Relaxed);
                    stop.store(true, Ordering::Relaxed);
                    return done;
                }
            }
        };
        let result = std::thread::scope(|scope| {
            let others: Vec<_> = (1..lanes).map(|_| scope.spawn(work)).collect();
            let mut result = work();
            for other in others {
                let theirs = other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
                result = result.and(theirs);
            }
            result
        });
        self.waiting = waiting.into_inner().unwrap_or_else(PoisonError::into_inner);
        self.speed = speed.into_inner().unwrap_or_else(PoisonError::into_inner);
        result?;
        if stop.load(Ordering::Relaxed) {
            // what still waits has nobody to go on for
            std::mem::take(&mut self.waiting).into_values().try_for_each(Job::park)?;
        }
        Ok(states.into_inner().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Site {
    /// Carries out one task, with the job that waited for it or a new one.
    fn carry_out(
        &self,
        task: &Task,
        kept: Option<Job>,
        threads: usize,
        stop: &AtomicBool,
        tell: &(dyn Fn(u32, News) + Sync),
    ) -> Result<(State, Option<Job>)> {
        let job = match kept {
            Some(job) => job,
            None => {
                let device = device::open(self.choice, threads)?.device;
                Job::open(&task.folder, &task.trials, device, self.checkpoint_every)?
            }
        };
        job.advance(&task.order, stop, &|news| tell(task.id, news))
    }
}

//! Does the cuda device train as the cpu does? The real host code drives a real GPU where there is one, and elsewhere a
//! fake driver whose kernels run on the CPU (`tests/cuda_sim/`), in a child process that finds it as `libcuda.so.1`.

mod common;

use common::cuda_sim::{self, FakeDriver};
use common::ops::{Buffers, POISON, distance, inputs, queue};
use common::recorded::Recorded;
use common::small_spec;
use slm_fast::device::{Call, Device, Kind, Layout, Queue};
use slm_fast::lab::cohort::{COLUMNS, Cohort, Row, Tensor};
use slm_fast::op::{ALL, Arg, Entry, Role};
use slm_fast::plan::Plan;
use std::sync::OnceLock;

/// Sessions of a cohort.
const SESSIONS: usize = 3;
/// Set in a child that has the fake driver.
const CHILD: &str = "SLM_FAKE_DRIVER";

fn driver() -> Option<&'static FakeDriver> {
    static DRIVER: OnceLock<FakeDriver> = OnceLock::new();
    let build = || FakeDriver::build().unwrap_or_else(|log| panic!("{log}"));
    cuda_sim::available().then(|| DRIVER.get_or_init(build))
}

/// Runs `body` on a device: here if there is one, else once more in a child that sees the fake one. What the child wrote.
#[track_caller]
fn on_cuda(test: &str, settings: &[(&str, &str)], body: impl FnOnce(&Device)) -> Option<String> {
    match Device::cuda(0) {
        Ok(device) => {
            body(&device);
            None
        }
        Err(error) if std::env::var_os(CHILD).is_some() => panic!("{error}"),
        Err(_) => {
            let run = |driver: &FakeDriver| {
                cuda_sim::again(test, |command| {
                    driver.under(command).env(CHILD, "1").envs(settings.iter().copied());
                })
            };
            driver().map(|driver| run(driver).unwrap_or_else(|text| panic!("{text}")))
        }
    }
}

/// Replays a case several times, each time with new inputs and other sessions: launch by launch, then as a graph.
fn check(entry: &Entry, case: usize, device: &Device) {
    let (args, tolerance) = ((entry.args)(case), (entry.tolerance)(case));
    let mut layout = Layout::on(Kind::Cuda, SESSIONS);
    let queue = queue(entry, case, &mut layout);
    let mut memory = layout.allocate_on(device).expect("device memory");
    for (round, sessions) in [&[0, 1, 2][..], &[0, 1, 2], &[2, 0], &[1]].into_iter().enumerate() {
        let place =
            |s: usize, arg: &Arg| format!("{} case {case}, replay {round}, session {s}, `{}`", entry.name, arg.name);
        let given: Vec<Buffers> = (0..SESSIONS).map(|s| inputs(entry, case, &args, 10 * round + s)).collect();
        for (s, buffers) in given.iter().enumerate() {
            for (id, words) in buffers.iter().enumerate() {
                memory.words_mut(id, s).copy_from_slice(words);
            }
        }
        queue.replay(device, &mut memory, sessions).expect("a replay");
        for (s, given) in given.iter().enumerate() {
            let mut expected = given.clone();
            if sessions.contains(&s) {
                (entry.define)(case, &mut expected);
            }
            for (id, arg) in args.iter().enumerate() {
                let got = memory.words(id, s);
                let fixed = arg.role == Role::Read || !sessions.contains(&s);
                for (i, (&x, &y)) in got.iter().zip(&expected[id]).enumerate() {
                    let limit = if fixed { 0.0 } else { tolerance };
                    assert!(distance(arg.dtype, x, y) <= limit, "{}[{i}]: {x:#x}, expected {y:#x}", place(s, arg));
                    assert!(fixed || arg.role == Role::Update || x != POISON, "{}[{i}] is not written", place(s, arg));
                }
            }
        }
    }
    assert_eq!(memory.overrun(), None, "{} case {case} writes past the end of a buffer", entry.name);
}

#[test]
fn every_op_equals_its_definition_through_the_driver() {
    on_cuda("every_op_equals_its_definition_through_the_driver", &[], |device| {
        // one alone, while it is being written
        let only = std::env::var("OP").ok();
        for entry in ALL.iter().filter(|entry| only.as_ref().is_none_or(|only| only == entry.name)) {
            (0..(entry.cases)()).for_each(|case| check(entry, case, device));
        }
    });
}

#[test]
fn a_queue_that_grows_is_recorded_again() {
    on_cuda("a_queue_that_grows_is_recorded_again", &[], |device| {
        let entry = ALL.iter().find(|entry| entry.name == "schedule").expect("an op");
        let mut layout = Layout::on(Kind::Cuda, 1);
        let mut calls: Vec<Box<dyn Call>> = (0..2).map(|case| (entry.launch)(case, &mut layout)).collect();
        let inputs: Buffers = (0..2).flat_map(|case| inputs(entry, case, &(entry.args)(case), case)).collect();
        let mut memory = layout.allocate_on(device).expect("device memory");
        for (id, words) in inputs.iter().enumerate() {
            memory.words_mut(id, 0).copy_from_slice(words);
        }
        let mut queue = Queue::default();
        for case in 0..2 {
            queue.push(Recorded { call: calls.remove(0).into(), hard: false });
            for _ in 0..3 {
                queue.replay(device, &mut memory, &[0]).expect("a replay");
            }
            let args = (entry.args)(case);
            for (arg, id) in args.iter().zip(case * args.len()..).filter(|(arg, _)| arg.role == Role::Write) {
                assert!(!memory.words(id, 0).contains(&POISON), "case {case}: `{}` is not written", arg.name);
            }
        }
    });
}

/// CartPole with nets of 16 x 16.
fn plan(max_frame: u64, set: &[(&str, &str)]) -> Plan {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join(common::write_spec(folder.path(), &small_spec(max_frame, 3, Some(11))));
    let set: Vec<(String, String)> = set.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
    Plan::new(&slm_fast::spec::load(&path, None, &set).expect("a spec").spec).expect("a plan")
}

/// What a training leaves: rows by session, and everything that the next iteration would read.
#[derive(PartialEq)]
struct Trained {
    rows: Vec<Vec<[u64; COLUMNS.len()]>>,
    state: Vec<Tensor>,
}

impl Trained {
    /// One session's rows, and its part of every tensor.
    fn session(&self, s: usize) -> (Vec<[u64; COLUMNS.len()]>, Vec<Vec<u32>>) {
        let part = |tensor: &Tensor| {
            let len = tensor.words.len() / self.rows.len();
            tensor.words[s * len..][..len].to_vec()
        };
        (self.rows[s].clone(), self.state.iter().map(part).collect())
    }

    /// `total_reward` of a session's last row.
    fn total_reward(&self, s: usize) -> f64 {
        let column = COLUMNS.iter().position(|name| *name == "total_reward").expect("a column");
        f64::from_bits(self.rows[s].last().expect("a row")[column])
    }

    /// Bits as one number.
    fn digest(&self) -> String {
        use std::hash::{DefaultHasher, Hash, Hasher};
        let mut hasher = DefaultHasher::new();
        self.rows.hash(&mut hasher);
        self.state.iter().for_each(|tensor| tensor.words.hash(&mut hasher));
        format!("digest {:016x}", hasher.finish())
    }
}

/// Trains a cohort from where it is, at most `iterations`.
fn train(cohort: &mut Cohort, sessions: usize, iterations: usize) -> Trained {
    let mut rows = vec![Vec::new(); sessions];
    for _ in 0..iterations {
        if cohort.done() {
            break;
        }
        cohort.iterate().expect("an iteration");
        for (s, rows) in rows.iter_mut().enumerate() {
            assert_eq!(cohort.fault(s), None, "session {s}");
            rows.extend(cohort.rows(s).iter().map(|row: &Row| row.map(f64::to_bits)));
        }
    }
    Trained { rows, state: cohort.snapshot().expect("a snapshot") }
}

fn cohort(plan: &Plan, sessions: &[u32], kind: Kind) -> Cohort {
    let device = match kind {
        Kind::Cpu => Device::cpu(1),
        Kind::Cuda => Device::cuda(0).expect("it was there a moment ago"),
    };
    Cohort::new(plan, 11, sessions, device).expect("memory")
}

fn trained(plan: &Plan, sessions: &[u32], kind: Kind) -> Trained {
    train(&mut cohort(plan, sessions, kind), sessions.len(), usize::MAX)
}

#[test]
fn training_ends_in_the_same_bits_again_alone_and_resumed() {
    on_cuda("training_ends_in_the_same_bits_again_alone_and_resumed", &[], |_| {
        // ends within an iteration, so that the shorter last one runs too
        let plan = plan(1400, &[]);
        let together = trained(&plan, &[0, 1, 2], Kind::Cuda);
        assert!(together == trained(&plan, &[0, 1, 2], Kind::Cuda), "again");
        for s in 0..3 {
            assert!(trained(&plan, &[s as u32], Kind::Cuda).session(0) == together.session(s), "session {s} alone");
        }
        let turned = trained(&plan, &[2, 7, 0], Kind::Cuda);
        assert!(turned.session(0) == together.session(2) && turned.session(2) == together.session(0), "other company");
        assert!(turned.session(1) != together.session(1), "sessions differ");

        let mut stopped = cohort(&plan, &[0, 1, 2], Kind::Cuda);
        let before = train(&mut stopped, 3, 4);
        let mut resumed = cohort(&plan, &[0, 1, 2], Kind::Cuda);
        // what is overwritten has been somewhere else
        train(&mut resumed, 3, 2);
        resumed.restore(&before.state).expect("a snapshot of the same plan");
        let after = train(&mut resumed, 3, usize::MAX);
        assert!(after.state == together.state, "resumed");
        for s in 0..3 {
            assert!([&before.rows[s][..], &after.rows[s]].concat() == together.rows[s], "rows of session {s}, resumed");
        }
    });
}

#[test]
fn cohorts_train_side_by_side_in_threads_of_their_own() {
    on_cuda("cohorts_train_side_by_side_in_threads_of_their_own", &[], |_| {
        let plan = plan(700, &[]);
        let alone: Vec<Trained> = [0, 1].map(|s| trained(&plan, &[s], Kind::Cuda)).into();
        // made here, trained there
        let mut cohorts = [0, 1].map(|s| cohort(&plan, &[s], Kind::Cuda));
        let together: Vec<Trained> = std::thread::scope(|scope| {
            let train = |cohort| scope.spawn(move || train(cohort, 1, usize::MAX));
            let threads: Vec<_> = cohorts.iter_mut().map(train).collect();
            threads.into_iter().map(|thread| thread.join().expect("a training")).collect()
        });
        assert!(alone == together);
    });
}

#[test]
fn any_order_of_threads_and_blocks_trains_the_same_bits() {
    let test = "any_order_of_threads_and_blocks_trains_the_same_bits";
    let outputs = ["0", "1", "3"].map(|schedule| {
        on_cuda(test, &[("FAKECUDA_SCHEDULE", schedule)], |_| {
            println!("{}", trained(&plan(600, &[]), &[0, 1], Kind::Cuda).digest());
        })
    });
    // a real GPU has its own order, and ran three times
    let digests: Vec<String> = outputs
        .into_iter()
        .flatten()
        .map(|text| text.lines().find(|line| line.contains("digest ")).expect("a digest").to_string())
        .collect();
    assert!(digests.windows(2).all(|pair| pair[0] == pair[1]), "{digests:?}");
}

#[test]
fn the_first_iteration_is_that_of_the_cpu() {
    on_cuda("the_first_iteration_is_that_of_the_cpu", &[], |_| {
        for set in [
            &[][..],
            &[("agent.net.shared", "true")],
            &[("env.normalize_reward", "true"), ("agent.algorithm.training_epoch", "1")],
        ] {
            let plan = plan(10_000, set);
            let cpu = train(&mut cohort(&plan, &[0, 1], Kind::Cpu), 2, 1);
            let gpu = train(&mut cohort(&plan, &[0, 1], Kind::Cuda), 2, 1);
            for (ours, theirs) in gpu.state.iter().zip(&cpu.state) {
                let off = |(x, y): (&u32, &u32)| distance(ours.dtype, *x, *y);
                let worst = ours.words.iter().zip(&theirs.words).map(off).fold(0.0, f64::max);
                assert!(worst < 1e-4, "{set:?} `{}`: off {worst:e}", ours.name);
            }
        }
    });
}

#[test]
fn it_learns_as_the_cpu_does() {
    on_cuda("it_learns_as_the_cpu_does", &[], |_| {
        let plan = plan(12_000, &[]);
        let mean = |kind| {
            let ended = trained(&plan, &[0, 1], kind);
            (ended.total_reward(0) + ended.total_reward(1)) / 2.0
        };
        let (cpu, cuda) = (mean(Kind::Cpu), mean(Kind::Cuda));
        println!("total_reward {cpu:.1} on the cpu, {cuda:.1} on cuda");
        assert!(cpu > 60.0 && cuda > 60.0, "{cpu} on the cpu, {cuda} on cuda; random actions have 22");
    });
}

/// Runs the program with the fake driver; its exit code and what it wrote.
fn program(args: &[&str], settings: &[(&str, &str)]) -> Option<(Option<i32>, String)> {
    let driver = driver()?;
    let folder = tempfile::tempdir().expect("a folder");
    common::write_spec(folder.path(), &small_spec(1400, 2, Some(11)));
    let mut command = common::slm_fast();
    driver.under(&mut command).envs(settings.iter().copied()).current_dir(folder.path()).args(args);
    let output = command.output().expect("the program starts");
    Some((output.status.code(), common::text(&output)))
}

const TRAIN: [&str; 4] = ["train", "small.json", "--device", "cuda"];

/// Trains with a driver or a device that fails, which must end the program with these words.
#[track_caller]
fn fails(settings: &[(&str, &str)], words: &[&str]) {
    if let Some((ended, text)) = program(&TRAIN, settings) {
        assert_eq!(ended, Some(2), "{text}");
        for word in words {
            assert!(text.contains(word), "`{word}` is missing in:\n{text}");
        }
    }
}

#[test]
fn a_run_from_the_command_line_is_written_and_resumed() {
    let Some(driver) = driver() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    common::write_spec(folder.path(), &small_spec(2000, 2, Some(11)));
    let run = |args: &[&str]| {
        let mut command = common::slm_fast();
        let output = driver.under(&mut command).current_dir(folder.path()).args(args).output().expect("it starts");
        let text = common::text(&output);
        assert!(output.status.success(), "{text}");
        text
    };
    let text = run(&[&TRAIN[..], &["--data", "one"]].concat());
    assert!(text.contains("cuda:0 (FakeCUDA (CPU))"), "{text}");
    let text = run(&["train", "small.json", "--device", "auto", "--data", "two"]);
    assert!(text.contains("cuda:0 (FakeCUDA (CPU)) (auto)"), "{text}");
    let model = |data: &str| {
        let run = common::only_run(&folder.path().join(data));
        let path = run.join("model/small_t0_s1_net_model.safetensors");
        slm_fast::report::checkpoint::Checkpoint::read(&path).expect("a model").tensors
    };
    assert!(model("one") == model("two"), "equal runs");
    let text = run(&["devices"]);
    assert!(text.contains("cuda:0  FakeCUDA (CPU), ") && text.contains("compute capability 9.0"), "{text}");
}

#[test]
fn a_device_that_is_too_small_is_told_before_the_first_frame() {
    let small = [("FAKECUDA_MEMORY", "40000")];
    fails(&small, &["out of memory", " for its buffers; free are 39.1 KiB of 39.1 KiB on cuda:0", "hint: "]);
}

#[test]
fn a_compiler_that_refuses_the_kernels_is_quoted() {
    let refuses = [("FAKECUDA_JIT_ERROR", "ptxas application ptx input, line 7; error: unknown symbol")];
    fails(&refuses, &["the driver does not take the kernels of `", "CUDA_ERROR_INVALID_PTX", "line 7; error: unknown"]);
}

#[test]
fn a_kernel_that_fails_is_named() {
    let first = [("FAKECUDA_FAIL", "rollout_cartpole:1")];
    fails(&first, &["`rollout`: its kernel `rollout_cartpole` failed", "CUDA_ERROR_LAUNCH_FAILED"]);
    // inside a graph the driver does not say which
    let later = [("FAKECUDA_FAIL", "rollout_cartpole:3")];
    fails(&later, &["a kernel of `schedule`, `rollout`", "CUDA_ERROR_LAUNCH_FAILED", "hint: `slm-fast dev"]);
}

#[test]
fn a_machine_without_a_fit_device_says_why() {
    let none = "no cuda device: ";
    fails(&[("FAKECUDA_KERNELS", "")], &[none, "no CUDA-capable device is detected", "hint: "]);
    fails(&[("FAKECUDA_DEVICES", "0")], &[none, "the driver shows no device"]);
    fails(&[("FAKECUDA_VERSION", "11080")], &[none, "the driver is of CUDA 11.8, the kernels need 12.0"]);
    fails(&[("FAKECUDA_CAPABILITY", "75")], &[none, "has compute capability 7.5, the kernels need 8.0"]);
    if let Some((code, text)) = program(&["train", "small.json", "--device", "auto"], &[("FAKECUDA_DEVICES", "0")]) {
        assert_eq!(code, Some(0), "{text}");
        assert!(text.contains("cpu (auto: no cuda device: "), "{text}");
    }
}

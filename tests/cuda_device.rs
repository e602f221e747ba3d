//! Does the cuda device train as the cpu does? The real host code drives a real GPU where there is one, and elsewhere a
//! fake driver whose kernels run on the CPU (`tests/cuda_sim/`), in a child process that finds it as `libcuda.so.1`.

mod common;

use common::cuda_sim::{self, FakeDriver};
use common::gpu::{self, SMALL_RECURRENT_Q, check, plan, q_plan, recurrent_plan, recurrent_q_plan, soft_plan, trained};
use common::ops::{Buffers, POISON, inputs};
use common::{files, only_run, outcome, small_spec, table};
use slm_fast::device::{Call, Device, Kind, Layout, Queue};
use slm_fast::op::{ALL, Role};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// Set in a child that has the fake driver.
const CHILD: &str = "SLM_FAKE_DRIVER";

fn driver() -> Option<&'static FakeDriver> {
    static DRIVER: OnceLock<FakeDriver> = OnceLock::new();
    let build = || FakeDriver::build().unwrap_or_else(|log| panic!("{log}"));
    cuda_sim::available().then(|| DRIVER.get_or_init(build))
}

/// The device, once it is known to be there.
fn cuda() -> Device {
    Device::cuda(0).expect("it was there a moment ago")
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

#[test]
fn every_op_equals_its_definition_through_the_driver() {
    on_cuda("every_op_equals_its_definition_through_the_driver", &[], |device| {
        // one alone, while it is being written
        let only = std::env::var("OP").ok();
        for entry in ALL.iter().filter(|entry| only.as_ref().is_none_or(|only| only == entry.name)) {
            (0..(entry.cases)())
                .filter(|&case| (entry.on)(case, Kind::Cuda))
                .for_each(|case| check(entry, case, device));
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
            queue.push(calls.remove(0));
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

#[test]
fn training_ends_in_the_same_bits_again_alone_and_resumed() {
    on_cuda("training_ends_in_the_same_bits_again_alone_and_resumed", &[], |_| gpu::ends_in_the_same_bits(cuda));
}

#[test]
fn cohorts_train_side_by_side_in_threads_of_their_own() {
    on_cuda("cohorts_train_side_by_side_in_threads_of_their_own", &[], |_| gpu::trains_side_by_side(cuda));
}

#[test]
fn any_order_of_threads_and_blocks_trains_the_same_bits() {
    let test = "any_order_of_threads_and_blocks_trains_the_same_bits";
    let outputs = ["0", "1", "3"].map(|schedule| {
        on_cuda(test, &[("FAKECUDA_SCHEDULE", schedule)], |_| {
            println!("{}", trained(&plan(600, &[]), &[0, 1], cuda()).digest());
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
    on_cuda("the_first_iteration_is_that_of_the_cpu", &[], |_| gpu::begins_as_the_cpu(cuda));
}

#[test]
fn q_learning_ends_in_the_same_bits_and_begins_as_on_the_cpu() {
    on_cuda("q_learning_ends_in_the_same_bits_and_begins_as_on_the_cpu", &[], |_| {
        gpu::ends_in_the_same_bits_with(&q_plan(1000, &[]), cuda);
        let others: [&[(&str, &str)]; 3] = [
            &[],
            &[
                ("agent.algorithm.action_policy", "boltzmann"),
                ("agent.algorithm.num_step_returns", "3"),
                ("agent.net.update_type", "polyak"),
                ("agent.net.polyak_coef", "0.1"),
                ("agent.net.hid_layers", "[70, 20]"),
            ],
            &[("agent.memory", r#"{ "name": "Replay", "batch_size": 33, "max_size": 400, "use_cer": false }"#)],
        ];
        others.iter().for_each(|set| gpu::after_some_iterations_as_the_cpu(&q_plan(10_000, set), 3, cuda));
    });
}

#[test]
fn soft_actor_critic_and_crossq_end_in_the_same_bits_and_begin_as_on_the_cpu() {
    on_cuda("soft_actor_critic_and_crossq_end_in_the_same_bits_and_begin_as_on_the_cpu", &[], |_| {
        for algorithm in ["SoftActorCritic", "CrossQ"] {
            gpu::ends_in_the_same_bits_with(&soft_plan(1000, algorithm, "Pendulum-v1"), cuda);
            for env in ["Pendulum-v1", "CartPole-v1"] {
                gpu::after_some_iterations_as_the_cpu(&soft_plan(10_000, algorithm, env), 3, cuda);
            }
        }
        gpu::after_some_iterations_as_the_cpu(&gpu::gumbel_plan(10_000), 3, cuda);
    });
}

#[test]
fn self_imitation_ends_in_the_same_bits_and_begins_as_on_the_cpu() {
    on_cuda("self_imitation_ends_in_the_same_bits_and_begins_as_on_the_cpu", &[], |_| {
        let [uniform, prioritized] = gpu::imitated();
        gpu::ends_in_the_same_bits_with(&gpu::imitating_plan(800, &prioritized), cuda);
        gpu::after_some_iterations_as_the_cpu(&gpu::imitating_plan(10_000, &uniform), 3, cuda);
    });
}

#[test]
fn recurrent_agents_end_in_the_same_bits_and_begin_as_on_the_cpu() {
    on_cuda("recurrent_agents_end_in_the_same_bits_and_begin_as_on_the_cpu", &[], |_| {
        gpu::ends_in_the_same_bits_with(&recurrent_plan(360, "PPO", "CartPole-v1", true), cuda);
        for (algorithm, env, shared) in
            [("PPO", "CartPole-v1", true), ("ActorCritic", "Pendulum-v1", false), ("Reinforce", "Acrobot-v1", true)]
        {
            gpu::after_some_iterations_as_the_cpu(&recurrent_plan(10_000, algorithm, env, shared), 3, cuda);
        }
    });
}

#[test]
fn recurrent_q_nets_end_in_the_same_bits_and_begin_as_on_the_cpu() {
    on_cuda("recurrent_q_nets_end_in_the_same_bits_and_begin_as_on_the_cpu", &[], |_| {
        let small =
            |max_frame, more: &[(&str, &str)]| recurrent_q_plan(max_frame, &[&SMALL_RECURRENT_Q, more].concat());
        gpu::ends_in_the_same_bits_with(&small(900, &[("agent.net.update_frequency", "64")]), cuda);
        let lstm = [
            ("agent.algorithm.name", "DQN"),
            ("agent.net.cell_type", "LSTM"),
            ("agent.net.fc_hid_layers", "[]"),
            ("agent.net.update_type", "polyak"),
            ("agent.net.polyak_coef", "0.1"),
        ];
        let alone = [("agent.algorithm.name", "VanillaDQN"), ("agent.net.seq_len", "1"), ("agent.net.burn_in", "0")];
        let others: [&[(&str, &str)]; 2] = [&lstm, &alone];
        others.iter().for_each(|set| gpu::after_some_iterations_as_the_cpu(&small(10_000, set), 3, cuda));
        // the spec at its own sizes, but for how often it learns
        let often = [("agent.algorithm.training_start_step", "200"), ("agent.algorithm.training_frequency", "64")];
        gpu::after_some_iterations_as_the_cpu(&recurrent_q_plan(10_000, &often), 2, cuda);
    });
}

#[test]
fn bf16_is_refused_where_minibatches_come_out_of_a_replay_memory() {
    on_cuda("bf16_is_refused_where_minibatches_come_out_of_a_replay_memory", &[], |_| {
        gpu::refuses_bf16(&q_plan(800, &[("meta.precision", "bf16")]), cuda);
    });
}

#[test]
fn it_learns_as_the_cpu_does() {
    on_cuda("it_learns_as_the_cpu_does", &[], |_| gpu::learns_as_the_cpu(cuda));
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

/// The program on the real device where there is one, else on the fake one.
fn on_device() -> Option<Command> {
    let mut command = common::slm_fast();
    if Device::cuda(0).is_err() {
        driver()?.under(&mut command);
    }
    Some(command)
}

#[test]
fn trials_of_a_search_are_those_of_train() {
    if on_device().is_some() {
        common::search::trials_are_those_of_train(|folder, args| {
            let mut command = on_device().expect("it was there a moment ago");
            let output = command.current_dir(folder).args(args).args(["--device", "cuda"]).output().expect("it starts");
            let text = common::text(&output);
            assert!(output.status.success(), "{args:?}\n{text}");
            text
        });
    }
}

#[test]
fn a_search_that_was_killed_ends_in_the_same_table_and_bits() {
    if on_device().is_none() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    // a real device has done with a short one before anybody could kill it
    let frames = if Device::cuda(0).is_ok() { 40_960 } else { 1_536 };
    let spec = common::write_spec(folder.path(), &common::search::halving(frames));
    let command = |args: &[&str]| {
        let mut command = on_device().expect("it was there a moment ago");
        command.current_dir(folder.path()).args(args).args(["--quiet", "--keep", "-1"]);
        command
    };
    let search = ["search", spec, "--device", "cuda", "--data"];
    let output = command(&[&search[..], &["whole"]].concat()).output().expect("it starts");
    assert!(output.status.success(), "{}", common::text(&output));
    let whole = only_run(&folder.path().join("whole"));

    let mut child = command(&[&search[..], &["killed", "--checkpoint-every", "0.01"]].concat())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("it starts");
    let begun = Instant::now();
    let data = folder.path().join("killed");
    let has_begun = || data.is_dir() && files(&data).iter().any(|name| name.contains("resume"));
    while !has_begun() && child.try_wait().expect("a child").is_none() {
        assert!(begun.elapsed() < Duration::from_secs(60), "no checkpoint in a minute");
        std::thread::sleep(Duration::from_millis(2));
    }
    assert!(child.try_wait().expect("a child").is_none(), "the search was over before it was killed");
    child.kill().expect("a child of ours");
    child.wait().expect("ended");
    let killed = only_run(&data);
    let resume = ["search", "--resume", &killed.display().to_string(), "--device", "cuda"];
    let output = command(&resume).output().expect("it starts");
    assert!(output.status.success(), "{}", common::text(&output));
    assert_eq!(table(&whole), table(&killed));
    assert_eq!(outcome(&whole), outcome(&killed));
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

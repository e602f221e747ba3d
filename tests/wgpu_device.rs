//! Does the wgpu device compute and train as the cpu does? On the first adapter there is, Mesa's software Vulkan in CI.
#![cfg(feature = "wgpu")]

mod common;

use common::gpu::{self, SMALL_RECURRENT_Q, check, q_plan, recurrent_plan, recurrent_q_plan, soft_plan};
use common::wgpu::adapter;
use slm_fast::device::wgpu::Wgpu;
use slm_fast::device::{Device, Kind, Limits};
use slm_fast::op::{ALL, Entry};
use std::sync::atomic::{AtomicUsize, Ordering};

/// The adapter once more. A test that opens it often holds it, so that a kernel is compiled once for all cohorts that
/// have it.
fn open() -> Device {
    Device::wgpu(0).expect("it was there a moment ago")
}

#[test]
fn every_op_equals_its_definition() {
    let Some(Device::Wgpu(wgpu)) = adapter() else { return };
    let has = wgpu.limits();
    let mut limits = vec![has, Limits::WEBGPU];
    if has.subgroups {
        limits.extend([Limits { subgroups: true, ..Limits::WEBGPU }, Limits { subgroups: false, ..has }]);
    } else {
        println!("skipped: {} has no subgroups", wgpu.describe());
    }
    let work: Vec<(&Entry, usize)> = cases().collect();
    // nearly all of the time goes into compiling kernels, which a software driver does in the one thread of a queue
    let next = AtomicUsize::new(0);
    let check_some = || {
        let own = Wgpu::apart(wgpu.ordinal()).expect("it was there a moment ago");
        while let Some(&(entry, case)) = work.get(next.fetch_add(1, Ordering::Relaxed)) {
            for limits in within(entry, case, &limits) {
                check(entry, case, &Device::Wgpu(own.clone().within(limits)));
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(4);
    std::thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(check_some))));
}

/// Every case of every op; of one alone, while it is being written.
fn cases() -> impl Iterator<Item = (&'static Entry, usize)> {
    let only = std::env::var("OP").ok();
    let all = ALL.iter().filter(move |entry| only.as_ref().is_none_or(|only| only == entry.name));
    all.flat_map(|&entry| (0..(entry.cases)()).map(move |case| (entry, case)))
        .filter(|(entry, case)| (entry.on)(*case, Kind::Wgpu))
}

/// Those of the limits at which a case has kernels of its own: where they are the same as at others, they are held once.
fn within(entry: &Entry, case: usize, limits: &[Limits]) -> Vec<Limits> {
    let (mut held, mut own) = (Vec::new(), Vec::new());
    for &limits in limits {
        let shaders = (entry.shaders)(case, &limits);
        assert!(!shaders.is_empty(), "{} case {case} has no kernel, {limits:?}", entry.name);
        if !shaders.is_empty() && !held.contains(&shaders) {
            held.push(shaders);
            own.push(limits);
        }
    }
    own
}

#[test]
fn bf16_is_refused() {
    let Some(_held) = adapter() else { return };
    gpu::refuses_bf16(&gpu::plan(800, &[("meta.precision", "bf16")]), open);
}

#[test]
fn training_ends_in_the_same_bits_again_alone_and_resumed() {
    let Some(_held) = adapter() else { return };
    gpu::ends_in_the_same_bits(open);
}

#[test]
fn q_learning_ends_in_the_same_bits_and_begins_as_on_the_cpu() {
    let Some(_held) = adapter() else { return };
    gpu::ends_in_the_same_bits_with(&q_plan(1000, &[]), open);
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
    others.iter().for_each(|set| gpu::after_some_iterations_as_the_cpu(&q_plan(1000, set), 3, open));
}

#[test]
fn soft_actor_critic_and_crossq_end_in_the_same_bits_and_begin_as_on_the_cpu() {
    let Some(_held) = adapter() else { return };
    for algorithm in ["SoftActorCritic", "CrossQ"] {
        let plan = soft_plan(1000, algorithm, "Pendulum-v1");
        gpu::ends_in_the_same_bits_with(&plan, open);
        // the kernels are compiled already
        gpu::after_some_iterations_as_the_cpu(&plan, 3, open);
        gpu::after_some_iterations_as_the_cpu(&soft_plan(10_000, algorithm, "CartPole-v1"), 3, open);
    }
    gpu::after_some_iterations_as_the_cpu(&gpu::gumbel_plan(10_000), 3, open);
}

#[test]
fn recurrent_agents_end_in_the_same_bits_and_begin_as_on_the_cpu() {
    let Some(_held) = adapter() else { return };
    gpu::ends_in_the_same_bits_with(&recurrent_plan(360, "PPO", "CartPole-v1", true), open);
    for (algorithm, env, shared) in [("ActorCritic", "Pendulum-v1", false), ("Reinforce", "Acrobot-v1", true)] {
        gpu::after_some_iterations_as_the_cpu(&recurrent_plan(10_000, algorithm, env, shared), 2, open);
    }
}

#[test]
fn recurrent_q_learning_ends_in_the_same_bits_and_begins_as_on_the_cpu() {
    let Some(_held) = adapter() else { return };
    let small = |more: &[(&str, &str)]| recurrent_q_plan(600, &[&SMALL_RECURRENT_Q, more].concat());
    let plan = small(&[("agent.net.update_frequency", "64")]);
    gpu::ends_in_the_same_bits_with(&plan, open);
    // the kernels are compiled already
    gpu::after_some_iterations_as_the_cpu(&plan, 3, open);
    let other = [
        ("agent.algorithm.name", "DQN"),
        ("agent.net.cell_type", "LSTM"),
        ("agent.net.fc_hid_layers", "[]"),
        ("agent.net.update_type", "polyak"),
        ("agent.net.polyak_coef", "0.1"),
    ];
    gpu::after_some_iterations_as_the_cpu(&small(&other), 3, open);
}

#[test]
fn self_imitation_ends_in_the_same_bits_and_begins_as_on_the_cpu() {
    let Some(_held) = adapter() else { return };
    let [uniform, prioritized] = gpu::imitated();
    gpu::ends_in_the_same_bits_with(&gpu::imitating_plan(800, &prioritized), open);
    gpu::after_some_iterations_as_the_cpu(&gpu::imitating_plan(800, &uniform), 3, open);
}

#[test]
fn cohorts_train_side_by_side_in_threads_of_their_own() {
    let Some(_held) = adapter() else { return };
    gpu::trains_side_by_side(open);
}

#[test]
fn the_first_iteration_is_that_of_the_cpu() {
    let Some(_held) = adapter() else { return };
    gpu::begins_as_the_cpu(open);
}

#[test]
fn it_learns_as_the_cpu_does() {
    let Some(_held) = adapter() else { return };
    gpu::learns_as_the_cpu(open);
}

/// Runs the program in a folder with a small spec; its exit code and what it wrote.
fn program(folder: &std::path::Path, args: &[&str], settings: &[(&str, &str)]) -> (Option<i32>, String) {
    common::write_spec(folder, &common::small_spec(1400, 2, Some(11)));
    let mut command = common::slm_fast();
    let output = command.envs(settings.iter().copied()).current_dir(folder).args(args).output().expect("it starts");
    (output.status.code(), common::text(&output))
}

const TRAIN: [&str; 4] = ["train", "small.json", "--device", "wgpu"];

#[test]
fn a_run_from_the_command_line_is_written_and_continues_elsewhere() {
    let Some(device) = adapter() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let run = |args: &[&str]| {
        let (code, text) = program(folder.path(), args, &[]);
        assert_eq!(code, Some(0), "{text}");
        text
    };
    let text = run(&[&TRAIN[..], &["--data", "one", "--verbose"]].concat());
    assert!(text.contains(&device.describe()) && text.contains(" kernels compiled in "), "{text}");
    run(&["train", "small.json", "--device", "wgpu:0", "--data", "two"]);
    let model = |data: &str| {
        let run = common::only_run(&folder.path().join(data));
        let path = run.join("model/small_t0_s1_net_model.safetensors");
        slm_fast::report::checkpoint::Checkpoint::read(&path).expect("a model").tensors
    };
    assert!(model("one") == model("two"), "equal runs");
    let Device::Wgpu(wgpu) = &device else { unreachable!("an adapter is a wgpu device") };
    let has_subgroups = wgpu.limits().subgroups;
    let text = run(&["devices"]);
    assert!(text.contains("wgpu:0  ") && text.contains(" of workgroup memory"), "{text}");
    assert!(text.contains(if has_subgroups { ", subgroups of " } else { ", no subgroups" }), "{text}");
    // its results are there, so that nothing is left to do; without them it goes on from its checkpoint on the cpu
    let first = common::only_run(&folder.path().join("one"));
    std::fs::remove_file(first.join("small_t0_trial_metrics_scalar.json")).expect("it was written");
    let text = run(&["train", "--resume", &first.display().to_string(), "--device", "cpu"]);
    assert!(text.contains("the checkpoint was written on wgpu"), "{text}");
}

#[test]
fn trials_of_a_search_are_those_of_train() {
    if adapter().is_some() {
        common::search::trials_are_those_of_train(|folder, args| {
            common::expect(folder, &[args, &["--device", "wgpu"]].concat(), 0)
        });
    }
}

#[test]
fn a_plan_that_an_adapter_cannot_hold_is_told_before_the_first_frame() {
    if adapter().is_none() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let large = ["--set", "env.num_envs=4194304", "--set", "env.max_frame=1000000000"];
    let (code, text) = program(folder.path(), &[&TRAIN[..], &large].concat(), &[]);
    assert_eq!(code, Some(2), "{text}");
    assert!(text.contains("wgpu:0: out of memory: the plan needs ") && text.contains(" of one cohort"), "{text}");
    assert!(text.contains("hint: lower `env.num_envs`"), "{text}");
}

#[test]
#[cfg(target_os = "linux")]
fn a_machine_without_a_driver_says_why() {
    let folder = tempfile::tempdir().expect("a folder");
    // the Vulkan loader looks nowhere else
    let nowhere = [("VK_DRIVER_FILES", "/nowhere.json"), ("VK_ICD_FILENAMES", "/nowhere.json")];
    let (code, text) = program(folder.path(), &TRAIN, &nowhere);
    assert_eq!(code, Some(2), "{text}");
    assert!(text.contains("--device: no wgpu device: no adapter: no Vulkan, Metal or DX12 driver"), "{text}");
    assert!(text.contains("hint: `slm-fast devices` lists what there is; use `--device cpu`"), "{text}");
    let (_, text) = program(folder.path(), &["devices"], &nowhere);
    assert!(text.contains("wgpu  none: no adapter: "), "{text}");
}

//! What is left of a run whose device is lost in the middle? On the first adapter there is; in a program of its own, since
//! all who use an adapter share its device.
#![cfg(feature = "wgpu")]

mod common;

use common::gpu;
use common::wgpu::adapter;
use slm_fast::device::Device;
use slm_fast::lab::progress::Verbosity;
use slm_fast::lab::provenance::Program;
use slm_fast::lab::trial::{Ending, Options, resume, train};
use slm_fast::report::checkpoint::Checkpoint;
use slm_fast::report::files::RunFolder;
use slm_fast::spec::DeviceChoice;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

const FRAMES: u64 = 6_000;

fn options(data: &Path) -> Options<'static> {
    Options {
        data: data.to_path_buf(),
        device: Some(DeviceChoice::Wgpu(0)),
        threads: 1,
        one_by_one: false,
        checkpoint_every: Duration::from_millis(20),
        verbosity: Verbosity::Quiet,
        stop: Arc::new(AtomicBool::new(false)),
        program: Program::unknown(),
        started: Instant::now(),
        watch: None,
    }
}

/// A run whose device is lost as soon as a resumable checkpoint is on disk; its folder, and the frame of the checkpoint.
fn lost_run(folder: &Path, data: &str) -> (std::path::PathBuf, u64) {
    let path = folder.join(common::write_spec(folder, &common::small_spec(FRAMES, 2, Some(11))));
    let spec = slm_fast::spec::load(&path, None, &[]).expect("a spec").spec;
    let data = folder.join(data);
    let Device::Wgpu(wgpu) = Device::wgpu(0).expect("it was there a moment ago") else { unreachable!("it is wgpu's") };
    let mut other = gpu::cohort(&gpu::plan(FRAMES, &[]), &[0], Device::Wgpu(wgpu.clone()));
    other.iterate().expect("an iteration");
    let mut lost_at = None;
    let seen = data.clone();
    let watch = Box::new(|_: &_, cohort: &slm_fast::lab::cohort::Cohort| {
        let is_saved = || common::files(&seen).iter().any(|name| name.ends_with("_resume.safetensors"));
        if lost_at.is_none() && is_saved() {
            lost_at = Some(cohort.frame());
            wgpu.give_up();
        }
        Ok(())
    });
    let error = train(spec, Options { watch: Some(watch), ..options(&data) }).expect_err("the device is lost");
    let lost_at = lost_at.expect("a checkpoint is written before the last frame");
    assert!(lost_at < FRAMES, "in the middle");
    let run = common::only_run(&data);
    let text = error.to_string();
    assert!(text.starts_with("wgpu:0: the device was lost during a replay of `schedule`, `rollout`"), "{text}");
    assert!(text.contains("hint: the last checkpoint is kept; `--device cpu` goes on without a GPU"), "{text}");
    assert!(text.contains(&format!("`slm-fast train --resume {}` continues", run.display())), "{text}");
    let saved = Checkpoint::read(&RunFolder::open(&run).expect("a run").resume(0)).expect("it is whole");
    let frame: u64 = saved.meta("frame").expect("it says its frame").parse().expect("a number");
    assert!(frame > 0 && frame <= lost_at, "the checkpoint of frame {frame} was written before frame {lost_at}");
    assert!(!run.join("small_t0_trial_metrics_scalar.json").exists(), "it is not complete");
    // who shares the device is told too
    let told = (0..20).try_for_each(|_| other.iterate().map(drop)).expect_err("the device is lost").to_string();
    assert!(told.starts_with("wgpu:0: the device was lost during "), "{told}");
    (run, frame)
}

#[test]
fn a_lost_device_ends_a_run_that_goes_on_from_its_checkpoint() {
    if adapter().is_none() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    // on a fresh device, in the same process
    let (run, frame) = lost_run(folder.path(), "one");
    match resume(&run, options(Path::new("unused"))).expect("it goes on") {
        Ending::Finished(summary) => {
            let rest = 2 * (FRAMES - frame);
            assert!(summary.faults == 0 && summary.frames >= rest && summary.frames < rest + 8, "{}", summary.frames);
        }
        other => panic!("{other:?}"),
    }
    assert!(run.join("small_t0_trial_metrics_scalar.json").exists());
    // from the command line, on the cpu
    let (run, _) = lost_run(folder.path(), "two");
    let text = common::expect(folder.path(), &["train", "--resume", &run.display().to_string(), "--device", "cpu"], 0);
    assert!(text.contains("the checkpoint was written on wgpu"), "{text}");
    assert!(run.join("small_t0_trial_metrics_scalar.json").exists());
}

//! Does the wgpu device compute and train as the cpu does? On the first adapter there is, Mesa's software Vulkan in CI.
#![cfg(feature = "wgpu")]

mod common;

use common::gpu::{self, check};
use common::wgpu::adapter;
use slm_fast::device::Device;
use slm_fast::op::ALL;

fn open() -> Device {
    Device::wgpu(0).expect("it was there a moment ago")
}

#[test]
fn every_op_equals_its_definition() {
    let Some(device) = adapter() else { return };
    // one alone, while it is being written
    let only = std::env::var("OP").ok();
    for entry in ALL.iter().filter(|entry| only.as_ref().is_none_or(|only| only == entry.name)) {
        for case in (0..(entry.cases)()).filter(|&case| has_kernels(&device, entry, case)) {
            check(entry, case, &device);
        }
    }
}

/// Whether the device takes a case. All that the cpu takes are taken; bf16 is not.
fn has_kernels(device: &Device, entry: &slm_fast::op::Entry, case: usize) -> bool {
    let Device::Wgpu(wgpu) = device else { unreachable!("an adapter is a wgpu device") };
    let has = !(entry.shaders)(case, &wgpu.limits()).is_empty();
    assert!(has || !(entry.on_cpu)(case), "{} case {case} has no kernel", entry.name);
    has
}

#[test]
fn training_ends_in_the_same_bits_again_alone_and_resumed() {
    if adapter().is_some() {
        gpu::ends_in_the_same_bits(open);
    }
}

#[test]
fn cohorts_train_side_by_side_in_threads_of_their_own() {
    if adapter().is_some() {
        gpu::trains_side_by_side(open);
    }
}

#[test]
fn the_first_iteration_is_that_of_the_cpu() {
    if adapter().is_some() {
        gpu::begins_as_the_cpu(open);
    }
}

#[test]
fn it_learns_as_the_cpu_does() {
    if adapter().is_some() {
        gpu::learns_as_the_cpu(open);
    }
}

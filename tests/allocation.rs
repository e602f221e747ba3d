//! Does training allocate after frame 0?

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use slm_fast::device::Device;
use slm_fast::lab::cohort::Cohort;
use slm_fast::plan::Plan;
use slm_fast::spec::Spec;

thread_local! {
    /// How often this thread has asked for memory.
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

/// The system's allocator, counted by thread.
struct Counting;

// SAFETY: forwarded to the system's allocator
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's promise
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, start: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise
        unsafe { System.dealloc(start, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

#[test]
fn an_iteration_allocates_nothing() {
    let spec = common::small_spec(6_400, 3, Some(1))["small"].take();
    let spec: Spec = serde_json::from_value(spec).expect("a spec");
    let plan = Plan::new(&spec).expect("a plan");
    // whole sessions on one thread, and one session whose tiles are shared out
    for (sessions, threads) in [(&[0, 1, 2][..], 1), (&[0][..], 2)] {
        let mut cohort = Cohort::new(&plan, 1, sessions, Device::cpu(threads)).expect("memory");
        // scratch grows once
        for _ in 0..3 {
            cohort.iterate().unwrap();
        }
        let before = ALLOCATIONS.get();
        let mut rows = 0;
        while !cohort.done() {
            cohort.iterate().unwrap();
            rows += cohort.rows(0).len();
        }
        assert_eq!(ALLOCATIONS.get() - before, 0, "{sessions:?} on {threads} threads");
        assert_eq!(rows, 47, "50 iterations of 128 frames, a row each");
    }
}

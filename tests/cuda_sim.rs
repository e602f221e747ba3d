//! Does the simulator of CUDA compute what a GPU does, and does it find the faults it is there for?

mod common;

use common::cuda::Module;
use common::cuda_sim::{self, Build, Config, Library, SCHEDULES};
use std::sync::OnceLock;

/// The module of `tests/cuda_sim/self_test.cu`; none where there is no simulator.
fn module() -> Option<&'static Library> {
    static LIBRARY: OnceLock<Library> = OnceLock::new();
    let module =
        || Module { name: "self_test".into(), source: "../tests/cuda_sim/self_test.cu".into(), defines: vec![] };
    let load = || cuda_sim::load(&module(), Build::here()).unwrap_or_else(|log| panic!("{log}"));
    cuda_sim::available().then(|| LIBRARY.get_or_init(load))
}

/// A launch of `blocks` blocks of `threads` threads.
struct Launch {
    entry: &'static str,
    blocks: u32,
    threads: u32,
    shared_bytes: u32,
    n: u32,
}

impl Launch {
    fn of(entry: &'static str, blocks: u32, threads: u32) -> Launch {
        Launch { entry, blocks, threads, shared_bytes: 0, n: 0 }
    }

    fn run(&self, schedule: usize, x: &[f32], out: &mut [f32]) -> Result<(), String> {
        let config = Config {
            grid: [self.blocks, 1, 1],
            block: [self.threads, 1, 1],
            shared_bytes: self.shared_bytes,
            schedule: schedule as u32,
            seed: 3,
        };
        let words = |address: u64| vec![address as u32, (address >> 32) as u32];
        let mut params = [vec![self.n], words(x.as_ptr() as u64), words(out.as_mut_ptr() as u64)];
        // SAFETY: kernels stay inside the two slices, or are there to be caught
        unsafe { module().expect("a simulator").launch(self.entry, &config, &mut params) }
    }

    /// Results under every schedule, from outputs of zero.
    fn outputs(&self, x: &[f32], out: usize) -> Vec<Vec<f32>> {
        let run = |schedule| {
            let mut out = vec![0.0; out];
            self.run(schedule, x, &mut out).unwrap_or_else(|error| panic!("{error}"));
            out
        };
        (0..SCHEDULES.len()).map(run).collect()
    }

    /// The message of a launch that fails, the same under every schedule.
    fn message(&self, x: &[f32]) -> String {
        let run = |schedule| self.run(schedule, x, &mut [0.0; 256]).expect_err("a launch that must fail");
        let mut messages: Vec<String> = (0..SCHEDULES.len()).map(run).collect();
        messages.dedup();
        assert_eq!(messages.len(), 1, "{messages:?}");
        messages.remove(0)
    }
}

/// Whole numbers whose sums are exact in any order.
fn whole(n: usize) -> Vec<f32> {
    (0..n).map(|i| ((i * 37) % 19) as f32).collect()
}

/// Bits, since a NaN is not equal to itself.
fn differ(outputs: &[Vec<f32>]) -> bool {
    let bits = |out: &Vec<f32>| out.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
    outputs.iter().any(|out| bits(out) != bits(&outputs[0]))
}

#[test]
fn barriers_and_shuffles_order_what_they_must() {
    if module().is_none() {
        return;
    }
    let x = whole(7 * 256);
    let sums: Vec<f32> = x.chunks(256).map(|block| block.iter().sum()).collect();
    let tree = Launch { shared_bytes: 1024, ..Launch::of("tree_sum", 7, 256) };
    assert!(tree.outputs(&x, 7).iter().all(|out| *out == sums));
    let warps = Launch { n: 2, ..Launch::of("warp_sums", 7, 256) };
    let twice: Vec<f32> = sums.iter().map(|sum| sum + 256.0 * sum).collect();
    assert!(warps.outputs(&x, 7).iter().all(|out| *out == twice), "static arrays belong to their block");
}

#[test]
fn missing_barriers_show_as_other_bits() {
    if module().is_none() {
        return;
    }
    let x = whole(256);
    let missing = Launch { shared_bytes: 1024, ..Launch::of("missing_barrier", 1, 256) };
    assert!(differ(&missing.outputs(&x, 1)));
    assert!(differ(&Launch { n: 3, ..Launch::of("overtaken", 1, 256) }.outputs(&x, 1)));
    assert!(differ(&Launch::of("lanes_in_step", 1, 32).outputs(&x, 32)));
    let unwritten = Launch { shared_bytes: 128, ..Launch::of("unwritten_shared", 1, 32) };
    assert!(unwritten.outputs(&x, 32).iter().flatten().all(|x| x.is_nan()), "shared memory starts as NaN");
}

#[test]
fn races_are_reported_with_their_lines() {
    if module().is_none() {
        return;
    }
    if Build::here() == Build::Plain {
        return cuda_sim::watched("races_are_reported_with_their_lines").unwrap_or_else(|text| panic!("{text}"));
    }
    let (x, shared_bytes) = (whole(256), 1024);
    let faulty = [
        Launch { shared_bytes, ..Launch::of("missing_barrier", 1, 256) },
        Launch { n: 3, ..Launch::of("overtaken", 1, 256) },
        Launch::of("lanes_in_step", 1, 32),
    ];
    for (launch, schedule) in faulty.iter().flat_map(|launch| (0..SCHEDULES.len()).map(move |s| (launch, s))) {
        let text = launch.run(schedule, &x, &mut [0.0; 256]).expect_err("a race");
        assert!(text.contains("a race of threads ") && text.matches("self_test.cu:").count() == 2, "{text}");
    }
    Launch { shared_bytes, ..Launch::of("tree_sum", 1, 256) }.outputs(&x, 1);
    Launch { n: 2, ..Launch::of("warp_sums", 1, 256) }.outputs(&x, 1);
}

#[test]
fn threads_that_do_not_meet_are_reported() {
    if module().is_none() {
        return;
    }
    let x = whole(32);
    let divergent = Launch::of("divergent_barrier", 1, 64).message(&x);
    assert!(divergent.starts_with("kernel `divergent_barrier`, block (0, 0, 0) of (1, 1, 1), 64 threads: stuck: "));
    assert!(divergent.contains("threads 0-31 in __syncthreads at self_test.cu:"), "{divergent}");
    assert!(divergent.contains("; threads 32-63 in __syncthreads at self_test.cu:"), "{divergent}");
    let left = Launch { n: 40, ..Launch::of("left_before_the_barrier", 1, 64) }.message(&x);
    assert!(left.contains("threads 0-39 in __syncthreads") && left.ends_with("; threads 40-63 returned"), "{left}");
    let missing = Launch::of("lanes_are_missing", 1, 32).message(&x);
    assert!(missing.contains("threads 0-15 in __shfl_sync of lanes 0xffffffff"), "{missing}");
    // a module goes on after a launch that failed
    let left = Launch { n: 64, ..Launch::of("left_before_the_barrier", 1, 64) };
    assert!(left.outputs(&x, 64).iter().flatten().all(|x| *x == 1.0));
}

#[test]
fn launches_that_a_driver_would_refuse_are_refused() {
    if module().is_none() {
        return;
    }
    let x = whole(32);
    let wide = Launch::of("divergent_barrier", 1, 96).message(&x);
    assert!(wide.contains("a block of 96 threads; its launch bounds say 64"), "{wide}");
    assert!(Launch::of("divergent_barrier", 0, 64).message(&x).contains("an empty grid"));
    let hungry = Launch { shared_bytes: 100 << 10, ..Launch::of("tree_sum", 1, 256) }.message(&x);
    assert!(hungry.contains("more than 99 KiB"), "{hungry}");
    if Build::here() == Build::Plain {
        let past = Launch { shared_bytes: 128, n: 1, ..Launch::of("past_dynamic_shared", 1, 32) }.message(&x);
        assert!(past.contains("wrote past its 128 bytes of dynamic shared memory"), "{past}");
    }
}

#[test]
fn the_last_block_sees_what_all_others_wrote() {
    if module().is_none() {
        return;
    }
    let x = whole(40);
    let sum = x.iter().fold(0.0, |sum: f32, x| sum * 0.5 + x);
    let outputs = Launch::of("last_block", 40, 32).outputs(&x, 42);
    assert!(outputs.iter().all(|out| out[0] == sum && out[1..41] == x));
}

#[test]
fn votes_and_shuffles_answer_as_the_programming_guide_says() {
    if module().is_none() {
        return;
    }
    let thirds = (0..32).step_by(3).fold(0u32, |bits, lane| bits | 1 << lane) as i32;
    let answer = |question: usize, thread: i32| -> i32 {
        let lane = thread % 32;
        match question {
            0 => 5,
            1 => lane / 8 * 8 + 1,
            2 => {
                if lane < 3 {
                    lane
                } else {
                    lane - 3
                }
            }
            3 => {
                if lane % 16 < 3 {
                    lane
                } else {
                    lane - 3
                }
            }
            4 => {
                if lane < 2 {
                    lane + 30
                } else {
                    lane
                }
            }
            5 => {
                if lane % 4 == 0 {
                    lane + 3
                } else {
                    lane
                }
            }
            6 => lane ^ 9,
            // an earlier segment may be read, a later one not
            7 => {
                if lane & 4 != 0 {
                    lane - 4
                } else {
                    lane
                }
            }
            8 => thirds,
            9..=10 => 1,
            11 => 13,
            12..=13 => 1,
            14 => (if lane < 16 { 0x5555u32 } else { 0x5555_0000 }) as i32,
            _ => {
                let (ffs, clz) = (if lane == 0 { 0 } else { lane.trailing_zeros() + 1 }, lane.leading_zeros());
                (lane.count_ones() + 8 * ffs + 256 * clz) as i32
            }
        }
    };
    for out in Launch::of("questions", 1, 64).outputs(&[], 16 * 64) {
        for (i, x) in out.iter().enumerate() {
            assert_eq!(*x, answer(i / 64, (i % 64) as i32) as f32, "question {}, thread {}", i / 64, i % 64);
        }
    }
}

#[test]
fn a_matrix_product_is_one() {
    if module().is_none() {
        return;
    }
    let x: Vec<f32> = (0..384).map(|i| ((i * 29 + i / 7) % 23) as f32 - 11.0).collect();
    let (a, b) = x.split_at(256);
    for out in Launch::of("matrix_product", 1, 32).outputs(&x, 128) {
        for (i, got) in out.iter().enumerate() {
            let sum: f32 = (0..16).map(|k| a[i / 8 * 16 + k] * b[k * 8 + i % 8]).sum();
            assert_eq!(*got, sum, "row {}, column {}", i / 8, i % 8);
        }
    }
}

/// Runs a faulty kernel in a sanitized child, where it must end with a report that names the file.
fn caught(test: &str, word: &str, launch: &Launch) {
    if module().is_none() {
        return;
    }
    if Build::here() == Build::Sanitized {
        // 32 words each, the second with a word to spare for a misaligned start
        launch.run(0, &whole(32), &mut [0.0; 33]).expect("the sanitizer ends the process");
        return;
    }
    let report = cuda_sim::sanitized(test).expect_err("a fault is found");
    assert!(report.contains(word) && report.contains("self_test.cu"), "{report}");
}

#[test]
fn reads_past_the_end_are_found() {
    let launch = Launch { n: 1, ..Launch::of("past_the_end", 1, 32) };
    caught("reads_past_the_end_are_found", "heap-buffer-overflow", &launch);
}

#[test]
fn writes_past_shared_memory_are_found() {
    let launch = Launch { n: 1, shared_bytes: 128, ..Launch::of("past_dynamic_shared", 1, 32) };
    caught("writes_past_shared_memory_are_found", "heap-buffer-overflow", &launch);
}

#[test]
fn misaligned_vectors_are_found() {
    let launch = Launch { n: 1, ..Launch::of("misaligned", 1, 32) };
    caught("misaligned_vectors_are_found", "misaligned address", &launch);
}

#[test]
fn conversions_that_differ_between_machines_are_found() {
    caught(
        "conversions_that_differ_between_machines_are_found",
        "outside the range",
        &Launch::of("out_of_range", 1, 32),
    );
}

#[test]
fn local_variables_without_a_value_have_a_strange_one() {
    if module().is_none() {
        return;
    }
    if Build::here() == Build::Plain {
        let test = "local_variables_without_a_value_have_a_strange_one";
        return cuda_sim::sanitized(test).unwrap_or_else(|report| panic!("{report}"));
    }
    let outputs = Launch { n: 2, ..Launch::of("uninitialized_local", 1, 32) }.outputs(&whole(32), 32);
    assert!(outputs.iter().flatten().all(|x| x.to_bits() == 0xFEFE_FEFE));
}

#[test]
fn right_kernels_are_right_under_the_sanitizer_too() {
    if module().is_none() || Build::here() == Build::Sanitized {
        return;
    }
    for test in ["barriers_and_shuffles_order_what_they_must", "a_matrix_product_is_one"] {
        cuda_sim::sanitized(test).unwrap_or_else(|report| panic!("{report}"));
    }
}

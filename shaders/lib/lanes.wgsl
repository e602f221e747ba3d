// How the lanes of a block meet: through workgroup memory. Part of lib/sums.wgsl; lib/lanes_subgroup.wgsl takes its
// place where the adapter has subgroups. Sums go over a tree of lanes, the upper half onto the lower one.

#import lib/core

// Numbers that are left when lanes have met once.
const MEETING = 32u;

var<workgroup> word_parts: array<u32, THREADS>;
var<workgroup> scan_parts: array<u32, 2u * THREADS>;
var<workgroup> least: u32;

// Sum over the block of one number per lane, in lane 0: every 32nd lane in order, then the first 32.
fn block_sum(x: f32, lane: u32) -> f32 {
    lane_parts[lane] = x;
    workgroupBarrier();
    var sum = x;
    if (lane < MEETING) {
        for (var other = lane + MEETING; other < THREADS; other += MEETING) { sum += lane_parts[other]; }
        lane_parts[lane] = sum;
    }
    workgroupBarrier();
    if (lane == 0u) {
        for (var other = 1u; other < MEETING; other++) { sum += lane_parts[other]; }
    }
    workgroupBarrier();
    return sum;
}

// Smallest of one word per lane, the same for the whole block.
fn block_min(x: u32, lane: u32) -> u32 {
    word_parts[lane] = x;
    workgroupBarrier();
    if (lane < MEETING) {
        var lowest = x;
        for (var other = lane + MEETING; other < THREADS; other += MEETING) { lowest = min(lowest, word_parts[other]); }
        word_parts[lane] = lowest;
    }
    workgroupBarrier();
    if (lane == 0u) {
        var lowest = word_parts[0];
        for (var other = 1u; other < MEETING; other++) { lowest = min(lowest, word_parts[other]); }
        least = lowest;
    }
    return workgroupUniformLoad(&least);
}

// Sums of two numbers over every `width` neighbouring lanes, a power of two; each lane has those of its group.
fn block_group_sums(x: vec4<f32>, lane: u32, width: u32) -> vec4<f32> {
    pair_parts[lane] = x;
    workgroupBarrier();
    for (var half = width / 2u; half > 0u; half /= 2u) {
        if (lane % width < half) {
            pair_parts[lane] = pair_add(pair_parts[lane], pair_parts[lane + half]);
        }
        workgroupBarrier();
    }
    let sums = pair_parts[lane / width * width];
    workgroupBarrier();
    return sums;
}

// Joins the moments of every `width` neighbouring lanes, a power of two; each lane has those of its group.
fn block_group_merge(x: Moments, lane: u32, width: u32) -> Moments {
    moment_parts[lane] = x;
    workgroupBarrier();
    for (var half = width / 2u; half > 0u; half /= 2u) {
        if (lane % width < half) {
            moment_parts[lane] = merge(moment_parts[lane], moment_parts[lane + half]);
        }
        workgroupBarrier();
    }
    let joined = moment_parts[lane / width * width];
    workgroupBarrier();
    return joined;
}

// Sum of `x` over the lanes before this one, and over all lanes of the block.
fn block_scan(x: u32, lane: u32) -> Scan {
    var at = 0u;
    scan_parts[lane] = x;
    workgroupBarrier();
    for (var apart = 1u; apart < THREADS; apart *= 2u) {
        var sum = scan_parts[at + lane];
        if (lane >= apart) {
            sum += scan_parts[at + lane - apart];
        }
        at = THREADS - at;
        scan_parts[at + lane] = sum;
        workgroupBarrier();
    }
    let scan = Scan(scan_parts[at + lane] - x, scan_parts[at + THREADS - 1u]);
    workgroupBarrier();
    return scan;
}

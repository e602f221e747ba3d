// Sums, moments and counts over the lanes of a block. Twin of src/op/lib/sums.rs in meaning, not in order: the order
// here is a tree over the lanes, the upper half onto the lower one, and depends on the size of the block alone, a power
// of two. All lanes of a block must come to functions whose names begin with `block`; each leaves its workgroup memory
// free.

#import lib/core
#import lib/wide

// Number of values, their mean and sum of squared deviations.
struct Moments {
    count: Wide,
    mean: Wide,
    m2: Wide,
}

var<workgroup> pair_parts: array<vec4<f32>, THREADS>;
var<workgroup> moment_parts: array<Moments, THREADS>;
var<workgroup> scan_parts: array<u32, 2u * THREADS>;

// Two sums side by side.
fn pair_add(a: vec4<f32>, b: vec4<f32>) -> vec4<f32> {
    return vec4<f32>(wide_add(a.xy, b.xy), wide_add(a.zw, b.zw));
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

// Sums of two numbers over the block; every lane has them.
fn block_sums(x: vec4<f32>, lane: u32) -> vec4<f32> {
    return block_group_sums(x, lane, THREADS);
}

fn no_moments() -> Moments {
    return Moments(Wide(0.0, 0.0), Wide(0.0, 0.0), Wide(0.0, 0.0));
}

// Joins the moments of two sets (Chan et al. 1979).
fn merge(a: Moments, b: Moments) -> Moments {
    let count = wide_add(a.count, b.count);
    if (count.x == 0.0) {
        return a;
    }
    let delta = wide_sub(b.mean, a.mean);
    let share = wide_div(b.count, count);
    let between = wide_mul(wide_square(delta), wide_mul(a.count, share));
    return Moments(count, wide_add(a.mean, wide_mul(delta, share)), wide_add(wide_add(a.m2, b.m2), between));
}

// Moments of `count` values from the sums of their distances to a pivot and of the squares of those. Exact enough where
// the pivot is one of the values, or near them; no pass over the values for the mean alone.
fn moments_about(pivot: Wide, count: Wide, sums: vec4<f32>) -> Moments {
    if (count.x == 0.0) {
        return no_moments();
    }
    let off = wide_div(sums.xy, count);
    let m2 = wide_sub(sums.zw, wide_mul(sums.xy, off));
    return Moments(count, wide_add(pivot, off), wide_max(m2, Wide(0.0, 0.0)));
}

// Adds a distance to the sums that `moments_about` takes.
fn add_distance(sums: vec4<f32>, off: Wide) -> vec4<f32> {
    return pair_add(sums, vec4<f32>(off, wide_square(off)));
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

// Joins the moments of a block's lanes; every lane has them.
fn block_merge(x: Moments, lane: u32) -> Moments {
    return block_group_merge(x, lane, THREADS);
}

struct Scan {
    before: u32,
    total: u32,
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

// Sums, moments and counts over the lanes of a block. Twin of src/op/lib/sums.rs in meaning, not in order: the order
// here is a tree over the lanes and depends on the size of the block alone, a power of two. How lanes meet, and by
// which tree, is the matter of lib/lanes.wgsl, or of lib/lanes_subgroup.wgsl where the adapter has subgroups. All lanes
// of a block must come to functions whose names begin with `block`; each leaves its workgroup memory free.

#import lib/core
#import lib/lanes
#import lib/wide

// Number of values, their mean and sum of squared deviations.
struct Moments {
    count: Wide,
    mean: Wide,
    m2: Wide,
}

// What each lane has found so far.
var<workgroup> lane_parts: array<f32, THREADS>;
var<workgroup> pair_parts: array<vec4<f32>, THREADS>;
var<workgroup> moment_parts: array<Moments, THREADS>;

// Two sums side by side.
fn pair_add(a: vec4<f32>, b: vec4<f32>) -> vec4<f32> {
    return vec4<f32>(wide_add(a.xy, b.xy), wide_add(a.zw, b.zw));
}

// Sums of two numbers over the block; every lane has them.
fn block_sums(x: vec4<f32>, lane: u32) -> vec4<f32> {
    return block_group_sums(x, lane, THREADS);
}

fn no_moments() -> Moments {
    return Moments(Wide(0.0, 0.0), Wide(0.0, 0.0), Wide(0.0, 0.0));
}

// Joins the moments of two sets (Chan et al. 1979). No branch, since lanes of a subgroup must stay together.
fn merge(a: Moments, b: Moments) -> Moments {
    let count = wide_add(a.count, b.count);
    let delta = wide_sub(b.mean, a.mean);
    // two empty sets make one
    let share = wide_div(b.count, select(count, wide(1.0), count.x == 0.0));
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

// Joins the moments of a block's lanes; every lane has them.
fn block_merge(x: Moments, lane: u32) -> Moments {
    return block_group_merge(x, lane, THREADS);
}

// Sum of what the lanes before one have, and of what all have.
struct Scan {
    before: u32,
    total: u32,
}

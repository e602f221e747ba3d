// How the lanes of a block meet where the adapter has subgroups, whose lanes see each other's registers. Takes the
// place of lib/lanes.wgsl; gives the same within rounding.
//
// Sums go over a tree of lanes, neighbours first: those 1 apart, 2, 4 and so on. As much of it as subgroups hold needs
// neither memory nor barriers; what they found goes through workgroup memory and is a subgroup's matter again. The
// order, and with it every bit, is a function of the block's size alone, whatever the size of subgroups.
//
// WGSL does not say which lanes share a subgroup, nor does an adapter say which of its sizes a kernel gets.
// `block_reach` finds out; where lanes are not neighbours in order, the whole tree goes through workgroup memory, to
// the same bits.

#import lib/core

// Most neighbours that are taken to share a subgroup.
const MOST_REACH = 128u;

var<workgroup> least: atomic<u32>;
var<workgroup> scan_parts: array<u32, THREADS>;

// Smallest of one word per lane, the same for the whole block.
fn block_min(x: u32, lane: u32) -> u32 {
    if (lane == 0u) { atomicStore(&least, 0xffffffffu); }
    workgroupBarrier();
    let own = subgroupMin(x);
    if (subgroupExclusiveAdd(1u) == 0u) { atomicMin(&least, own); }
    return workgroupUniformLoad(&least);
}

// Whether bits 0 to n - 1 of four words are set and no other.
fn are_lowest(words: vec4<u32>, n: u32) -> bool {
    var fit = true;
    for (var w = 0u; w < 4u; w++) {
        let here = clamp(n, 32u * w, 32u * w + 32u) - 32u * w;
        fit = fit && words[w] == select((1u << (here & 31u)) - 1u, 0xffffffffu, here == 32u);
    }
    return fit;
}

// How many neighbouring lanes share a subgroup in order, each at the place in it that its number says: a power of two
// that holds for the whole block, 1 where there are none.
fn block_reach(lane: u32) -> u32 {
    let here = subgroupBallot(true);
    let bits = countOneBits(here);
    let size = bits.x + bits.y + bits.z + bits.w;
    let first = subgroupBroadcastFirst(lane);
    let in_order = lane == first + subgroupExclusiveAdd(1u) && first % size == 0u && are_lowest(here, size);
    let all_in_order = subgroupAll(in_order) && (size & (size - 1u)) == 0u;
    return block_min(select(1u, min(size, MOST_REACH), all_in_order), lane);
}

// Parts of `span` lanes that meet at once, of `width` lanes.
fn meeting(reach: u32, span: u32, width: u32) -> u32 {
    return min(max(reach, 2u), width / span);
}

// Sum over the block of one number per lane; every lane has it.
fn block_sum(x: f32, lane: u32) -> f32 {
    let reach = block_reach(lane);
    var sum = x;
    for (var apart = 1u; apart < reach; apart *= 2u) { sum += subgroupShuffleXor(sum, apart); }
    for (var span = reach; span < THREADS;) {
        let many = meeting(reach, span, THREADS);
        let first = lane / (span * many) * (span * many);
        lane_parts[lane] = sum;
        workgroupBarrier();
        if (reach == 1u) {
            sum = lane_parts[first] + lane_parts[first + span];
        } else {
            sum = lane_parts[first + lane % many * span];
            for (var apart = 1u; apart < many; apart *= 2u) { sum += subgroupShuffleXor(sum, apart); }
        }
        workgroupBarrier();
        span *= many;
    }
    return sum;
}

// Adds what the lane `apart` away has, the lower lane first.
fn pair_across(x: vec4<f32>, lane: u32, apart: u32) -> vec4<f32> {
    let other = subgroupShuffleXor(x, apart);
    let is_upper = (lane & apart) != 0u;
    return pair_add(select(x, other, is_upper), select(other, x, is_upper));
}

// Sums of two numbers over every `width` neighbouring lanes, a power of two; each lane has those of its group.
fn block_group_sums(x: vec4<f32>, lane: u32, width: u32) -> vec4<f32> {
    let reach = min(block_reach(lane), width);
    var sums = x;
    for (var apart = 1u; apart < reach; apart *= 2u) { sums = pair_across(sums, lane, apart); }
    for (var span = reach; span < width;) {
        let many = meeting(reach, span, width);
        let first = lane / (span * many) * (span * many);
        pair_parts[lane] = sums;
        workgroupBarrier();
        if (reach == 1u) {
            sums = pair_add(pair_parts[first], pair_parts[first + span]);
        } else {
            sums = pair_parts[first + lane % many * span];
            for (var apart = 1u; apart < many; apart *= 2u) { sums = pair_across(sums, lane, apart); }
        }
        workgroupBarrier();
        span *= many;
    }
    return sums;
}

fn choose(a: Moments, b: Moments, second: bool) -> Moments {
    return Moments(select(a.count, b.count, second), select(a.mean, b.mean, second), select(a.m2, b.m2, second));
}

// Joins what the lane `apart` away has, the lower lane first.
fn merge_across(x: Moments, lane: u32, apart: u32) -> Moments {
    let other = Moments(subgroupShuffleXor(x.count, apart), subgroupShuffleXor(x.mean, apart),
                        subgroupShuffleXor(x.m2, apart));
    let is_upper = (lane & apart) != 0u;
    return merge(choose(x, other, is_upper), choose(other, x, is_upper));
}

// Joins the moments of every `width` neighbouring lanes, a power of two; each lane has those of its group.
fn block_group_merge(x: Moments, lane: u32, width: u32) -> Moments {
    let reach = min(block_reach(lane), width);
    var joined = x;
    for (var apart = 1u; apart < reach; apart *= 2u) { joined = merge_across(joined, lane, apart); }
    for (var span = reach; span < width;) {
        let many = meeting(reach, span, width);
        let first = lane / (span * many) * (span * many);
        moment_parts[lane] = joined;
        workgroupBarrier();
        if (reach == 1u) {
            joined = merge(moment_parts[first], moment_parts[first + span]);
        } else {
            joined = moment_parts[first + lane % many * span];
            for (var apart = 1u; apart < many; apart *= 2u) { joined = merge_across(joined, lane, apart); }
        }
        workgroupBarrier();
        span *= many;
    }
    return joined;
}

// Sum of `x` over the lanes before this one, and over all lanes of the block.
fn block_scan(x: u32, lane: u32) -> Scan {
    let reach = block_reach(lane);
    var before = 0u;
    var total = x;
    for (var apart = 1u; apart < reach; apart *= 2u) {
        let other = subgroupShuffleXor(total, apart);
        before += select(0u, other, (lane & apart) != 0u);
        total += other;
    }
    scan_parts[lane] = total;
    workgroupBarrier();
    total = 0u;
    for (var first = 0u; first < THREADS; first += reach) {
        let part = scan_parts[first];
        before += select(0u, part, first + reach <= lane);
        total += part;
    }
    workgroupBarrier();
    return Scan(before, total);
}

// Running moments of observations and the normalizer made of them. Twin of src/op/obs_moments.rs.
//
// `obs_tile` has a block of 256 lanes for a tile of rows and up to 256 columns: a lane keeps to one column and takes
// every so-manieth row, so that neighbours in memory are neighbours in the block. Sums and squares are taken about the
// column's first value in the tile, as pairs of floats, one pass over the observations: 4 T N O bytes read, some 60
// operations a word, bound by arithmetic. Then the lanes of a column are added up in halves. `obs_join` has 32 lanes
// per column, which join the tiles one after another, then in a tree, then with the running moments. Where one block
// sees everything, `obs_tile` does both and is the only launch. Tiles are a function of rows and columns.

#import lib/core
#import lib/sums

struct Shape {
    // rows and columns
    rows: u32,
    o: u32,
    // columns of a block, rows of a tile, number of tiles
    columns: u32,
    tile: u32,
    tiles: u32,
}

struct Args {
    obs: ReadF,            // [T, N, O]
    obs_moments: UpdateF,  // [1 + 2 * O]
    normalizer: WriteF,    // [2, O]
    scratch: UpdateF,
}

// Lanes that join the tiles of a column.
const JOINERS = 32u;
const NORMALIZER_ROOM = Wide(NORMALIZER_EPSILON, NORMALIZER_EPSILON_LOW);

// Joins the rollout's moments of a column to the running ones, whose count was `count`; the new count. One lane.
fn take_in(s: u32, column: u32, count: f32, now: Moments) -> f32 {
    let means = a.obs_moments.at + s * a.obs_moments.stride + 1u;
    let squares = means + d.o;
    let normalizer = a.normalizer.at + s * a.normalizer.stride;
    let joined = merge(Moments(wide(count), wide(get_f(means + column)), wide(get_f(squares + column))), now);
    put(means + column, narrow(joined.mean));
    put(squares + column, narrow(joined.m2));
    put(normalizer + column, narrow(joined.mean));
    let variance = wide_add(wide_div(joined.m2, joined.count), NORMALIZER_ROOM);
    put(normalizer + d.o + column, narrow(wide_div(wide(1.0), wide_sqrt(variance))));
    return narrow(joined.count);
}

@compute @workgroup_size(THREADS)
fn obs_tile(@builtin(workgroup_id) block: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    if (block.y >= sessions[0]) {
        return;
    }
    let s = sessions[1u + block.y];
    let obs = a.obs.at + s * a.obs.stride;
    let moments = a.obs_moments.at + s * a.obs_moments.stride;
    let scratch = a.scratch.at + s * a.scratch.stride;
    let first = block.z * d.columns;
    let columns = min(d.o - first, d.columns);
    let begin = block.x * d.tile;
    let rows = min(d.rows - begin, d.tile);
    let ways = THREADS / columns;
    let way = lane / columns;
    let column = first + lane % columns;

    // a lane's rows
    let pivot = get_f(obs + begin * d.o + column);
    var sums = vec4<f32>();
    if (way < ways) {
        for (var row = way; row < rows; row += ways) {
            sums = add_distance(sums, two_sum(get_f(obs + (begin + row) * d.o + column), -pivot));
        }
    }
    pair_parts[lane] = sums;
    workgroupBarrier();
    // the upper part of the ways onto the lower one
    for (var left = ways; left > 1u;) {
        let kept = (left + 1u) / 2u;
        if (way + kept < left) {
            pair_parts[lane] = pair_add(pair_parts[lane], pair_parts[lane + kept * columns]);
        }
        left = kept;
        workgroupBarrier();
    }

    let count = get_f(moments);
    // the count is written below
    storageBarrier();
    workgroupBarrier();
    if (way == 0u) {
        let found = moments_about(wide(pivot), wide_of_u32(rows), pair_parts[lane]);
        if (d.tiles == 1u && d.columns == d.o) {
            let joined = take_in(s, column, count, found);
            if (column == 0u) {
                put(moments, joined);
            }
        } else {
            put4(scratch + 4u + 4u * (block.x * d.o + column), vec4<f32>(found.mean, found.m2));
            // for the blocks of the next launch, of which one writes the new count
            if (block.x == 0u && column == 0u) {
                put(scratch, count);
            }
        }
    }
}

@compute @workgroup_size(THREADS)
fn obs_join(@builtin(workgroup_id) block: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    if (block.y >= sessions[0]) {
        return;
    }
    let s = sessions[1u + block.y];
    let scratch = a.scratch.at + s * a.scratch.stride;
    let column = block.x * (THREADS / JOINERS) + lane / JOINERS;
    var all = no_moments();
    if (column < d.o) {
        for (var tile = lane % JOINERS; tile < d.tiles; tile += JOINERS) {
            let found = get4(scratch + 4u + 4u * (tile * d.o + column));
            let rows = min(d.rows - tile * d.tile, d.tile);
            all = merge(all, Moments(wide_of_u32(rows), found.xy, found.zw));
        }
    }
    all = block_group_merge(all, lane, JOINERS);
    if (lane % JOINERS == 0u && column < d.o) {
        let joined = take_in(s, column, get_f(scratch), all);
        if (column == 0u) {
            put(a.obs_moments.at + s * a.obs_moments.stride, joined);
        }
    }
}

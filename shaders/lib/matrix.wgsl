// Products of matrices in the arena, a tile of SIDE x SIDE numbers per block of 64 lanes.
//
// A lane has 8 x 8 of the tile's sums, in quads half a tile apart, and adds over the depth in order. Slabs of DEPTH columns
// of the left and rows of the right matrix pass through workgroup memory, 8 KiB, laid out so that lanes read quads of four
// neighboring numbers: 16 words per 64 fused multiply-adds. Numbers beyond a matrix's ends count as zeros, so no product
// asks where one ends, and what lies there is never read.

#import lib/core

const SIDE = 64u;
const DEPTH = 16u;
const MATRIX_LANES = 64u;

// Quads of a row of the right matrix, or of a column of the left one.
const SIDE_QUADS = SIDE / 4u;

var<workgroup> left_slab: array<vec4<f32>, DEPTH * SIDE_QUADS>;
var<workgroup> right_slab: array<vec4<f32>, DEPTH * SIDE_QUADS>;

// A matrix's numbers with i beside the tile and k along the depth: `at + i * next + k * deeper`, for i < `side` and
// k < `depth`. One of `next` and `deeper` is 1.
struct Matrix {
    at: u32,
    next: u32,
    deeper: u32,
    side: u32,
    depth: u32,
}

// Sums of a lane: quad `4 * (2 * h + w) + i` is row `32 h + 4 r + i`, columns from `32 w + 4 c` on, for the lane's r, c.
alias TileSums = array<vec4<f32>, 16>;

// What one lane brings of a slab in step `t` of 16: its place (i, k). Neighboring lanes take neighboring words.
fn brought(m: Matrix, t: u32, lane: u32) -> vec2<u32> {
    if (m.next == 1u) { return vec2<u32>(lane, t); }
    return vec2<u32>(t * 4u + lane / DEPTH, lane % DEPTH);
}

fn element(m: Matrix, i: u32, k: u32) -> f32 {
    if (i >= m.side || k >= m.depth) { return 0.0; }
    return get_f(m.at + i * m.next + k * m.deeper);
}

// Adds the products of two quads of a column of the left matrix with two of a row of the right one.
fn add_outer(left: vec4<f32>, left_far: vec4<f32>, near: vec4<f32>, far: vec4<f32>, sums: ptr<function, TileSums>) {
    (*sums)[0] = fma(vec4<f32>(left.x), near, (*sums)[0]);
    (*sums)[1] = fma(vec4<f32>(left.y), near, (*sums)[1]);
    (*sums)[2] = fma(vec4<f32>(left.z), near, (*sums)[2]);
    (*sums)[3] = fma(vec4<f32>(left.w), near, (*sums)[3]);
    (*sums)[4] = fma(vec4<f32>(left.x), far, (*sums)[4]);
    (*sums)[5] = fma(vec4<f32>(left.y), far, (*sums)[5]);
    (*sums)[6] = fma(vec4<f32>(left.z), far, (*sums)[6]);
    (*sums)[7] = fma(vec4<f32>(left.w), far, (*sums)[7]);
    (*sums)[8] = fma(vec4<f32>(left_far.x), near, (*sums)[8]);
    (*sums)[9] = fma(vec4<f32>(left_far.y), near, (*sums)[9]);
    (*sums)[10] = fma(vec4<f32>(left_far.z), near, (*sums)[10]);
    (*sums)[11] = fma(vec4<f32>(left_far.w), near, (*sums)[11]);
    (*sums)[12] = fma(vec4<f32>(left_far.x), far, (*sums)[12]);
    (*sums)[13] = fma(vec4<f32>(left_far.y), far, (*sums)[13]);
    (*sums)[14] = fma(vec4<f32>(left_far.z), far, (*sums)[14]);
    (*sums)[15] = fma(vec4<f32>(left_far.w), far, (*sums)[15]);
}

// sums += left right; all lanes of the block must come here.
fn multiply(left: Matrix, right: Matrix, lane: u32, sums: ptr<function, TileSums>) {
    let r = lane / 8u;
    let c = lane % 8u;
    for (var k0 = 0u; k0 < left.depth; k0 += DEPTH) {
        workgroupBarrier();
        for (var t = 0u; t < DEPTH; t++) {
            var to = brought(left, t, lane);
            left_slab[to.y * SIDE_QUADS + to.x / 4u][to.x % 4u] = element(left, to.x, k0 + to.y);
            to = brought(right, t, lane);
            right_slab[to.y * SIDE_QUADS + to.x / 4u][to.x % 4u] = element(right, to.x, k0 + to.y);
        }
        workgroupBarrier();
        for (var k = 0u; k < DEPTH; k++) {
            let near = right_slab[k * SIDE_QUADS + c];
            let far = right_slab[k * SIDE_QUADS + c + 8u];
            add_outer(left_slab[k * SIDE_QUADS + r], left_slab[k * SIDE_QUADS + r + 8u], near, far, sums);
        }
    }
}

// Where a tile of sums goes: `at + row * next + column`, for rows and columns within.
struct Target {
    at: u32,
    next: u32,
    rows: u32,
    cols: u32,
}

fn put_quad(to: Target, row: u32, col: u32, x: vec4<f32>) {
    if (row >= to.rows) { return; }
    let at = to.at + row * to.next + col;
    if (col < to.cols) { put(at, x.x); }
    if (col + 1u < to.cols) { put(at + 1u, x.y); }
    if (col + 2u < to.cols) { put(at + 2u, x.z); }
    if (col + 3u < to.cols) { put(at + 3u, x.w); }
}

// Writes a lane's sums; quad by quad with constant numbers, so that the sums stay in registers.
fn put_tile(to: Target, lane: u32, sums: ptr<function, TileSums>) {
    let row = lane / 8u * 4u;
    let col = lane % 8u * 4u;
    put_quad(to, row, col, (*sums)[0]);
    put_quad(to, row + 1u, col, (*sums)[1]);
    put_quad(to, row + 2u, col, (*sums)[2]);
    put_quad(to, row + 3u, col, (*sums)[3]);
    put_quad(to, row, col + 32u, (*sums)[4]);
    put_quad(to, row + 1u, col + 32u, (*sums)[5]);
    put_quad(to, row + 2u, col + 32u, (*sums)[6]);
    put_quad(to, row + 3u, col + 32u, (*sums)[7]);
    put_quad(to, row + 32u, col, (*sums)[8]);
    put_quad(to, row + 33u, col, (*sums)[9]);
    put_quad(to, row + 34u, col, (*sums)[10]);
    put_quad(to, row + 35u, col, (*sums)[11]);
    put_quad(to, row + 32u, col + 32u, (*sums)[12]);
    put_quad(to, row + 33u, col + 32u, (*sums)[13]);
    put_quad(to, row + 34u, col + 32u, (*sums)[14]);
    put_quad(to, row + 35u, col + 32u, (*sums)[15]);
}

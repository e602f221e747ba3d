// Products of matrices in the arena, a tile of SIDE x SIDE numbers per block of 64 lanes.
//
// A lane has 8 x 8 of the tile's sums, in quads half a tile apart, and adds over the depth in order. Slabs of DEPTH
// columns of the left and rows of the right matrix pass through workgroup memory, 8 KiB, laid out so that lanes read
// quads of four neighboring numbers: 16 words per 64 fused multiply-adds. Numbers beyond a matrix's ends count as
// zeros, so no product asks where one ends, and what lies there is never read.

#import lib/core

const SIDE = 64u;
const DEPTH = 16u;
const MATRIX_LANES = 64u;

// Quads of a row of the right matrix, or of a column of the left one.
const SIDE_QUADS = SIDE / 4u;

// Slab of the left matrix, then of the right one; in the end half of the tile's sums, row by row.
const RIGHT = DEPTH * SIDE_QUADS;
var<workgroup> slabs: array<vec4<f32>, 2u * RIGHT>;

// A matrix's numbers with i beside the tile and k along the depth: `at + i * next + k * deeper`, for i < `side` and
// k < `depth`. One of `next` and `deeper` is 1.
struct Matrix {
    at: u32,
    next: u32,
    deeper: u32,
    side: u32,
    depth: u32,
}

// Sums of a lane: quad `4 * (2 * h + w) + i` is row `32 h + 4 r + i`, columns from `32 w + 4 c` on, for the lane's r,
// c.
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
            slabs[to.y * SIDE_QUADS + to.x / 4u][to.x % 4u] = element(left, to.x, k0 + to.y);
            to = brought(right, t, lane);
            slabs[RIGHT + to.y * SIDE_QUADS + to.x / 4u][to.x % 4u] = element(right, to.x, k0 + to.y);
        }
        workgroupBarrier();
        for (var k = 0u; k < min(left.depth - k0, DEPTH); k++) {
            let near = slabs[RIGHT + k * SIDE_QUADS + c];
            let far = slabs[RIGHT + k * SIDE_QUADS + c + 8u];
            add_outer(slabs[k * SIDE_QUADS + r], slabs[k * SIDE_QUADS + r + 8u], near, far, sums);
        }
    }
}

const HALF_SIDE = SIDE / 2u;

// Puts rows `HALF_SIDE * half` and on of the tile where all lanes see them; all lanes must come here.
fn keep_half(half: u32, lane: u32, sums: ptr<function, TileSums>) {
    let at = lane / 8u * 4u * SIDE_QUADS + lane % 8u;
    let upper = half == 1u;
    workgroupBarrier();
    slabs[at + 0u * SIDE_QUADS + 0u] = select((*sums)[0], (*sums)[8], upper);
    slabs[at + 1u * SIDE_QUADS + 0u] = select((*sums)[1], (*sums)[9], upper);
    slabs[at + 2u * SIDE_QUADS + 0u] = select((*sums)[2], (*sums)[10], upper);
    slabs[at + 3u * SIDE_QUADS + 0u] = select((*sums)[3], (*sums)[11], upper);
    slabs[at + 0u * SIDE_QUADS + 8u] = select((*sums)[4], (*sums)[12], upper);
    slabs[at + 1u * SIDE_QUADS + 8u] = select((*sums)[5], (*sums)[13], upper);
    slabs[at + 2u * SIDE_QUADS + 8u] = select((*sums)[6], (*sums)[14], upper);
    slabs[at + 3u * SIDE_QUADS + 8u] = select((*sums)[7], (*sums)[15], upper);
    workgroupBarrier();
}

// A sum of the half that is kept.
fn kept(row: u32, col: u32) -> f32 {
    return slabs[row * SIDE_QUADS + col / 4u][col % 4u];
}

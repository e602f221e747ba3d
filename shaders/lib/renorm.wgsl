// Hidden layers with Batch Renormalization behind them, column by column of a batch. Twin of src/op/lib/renorm.rs.
//
// A layer's parameters are weight, bias, scale, shift; `Net` knows where weight and bias begin. A block has COLUMNS
// columns of a batch and PARTS lanes to each, which take every PARTS-th row: neighboring lanes have neighboring columns.

#import lib/core

const COLUMNS = 16u;
const PARTS = 16u;

var<workgroup> column_parts: array<f32, COLUMNS * PARTS>;

// Where scale and shift of a layer lie behind its bias.
fn scale_of(bias: u32, output: u32) -> u32 {
    return bias + output;
}

fn shift_of(bias: u32, output: u32) -> u32 {
    return bias + 2u * output;
}

// The sum of a column, from those of its lanes, part by part; all lanes of the block must come here.
fn column_sum(x: f32, lane: u32) -> f32 {
    workgroupBarrier();
    column_parts[lane] = x;
    workgroupBarrier();
    var sum = 0.0;
    for (var part = 0u; part < PARTS; part++) { sum += column_parts[part * COLUMNS + lane % COLUMNS]; }
    return sum;
}

// A sum tree of `d.children` children to a node, over the priorities of a replay ring. Twin of src/op/lib/tree.rs, sum
// for sum, so that a place finds the same leaf; a compiler might take sums apart, so each goes through `keep`.
//
// The op has `d.levels`: where they begin, leaves first.

#import lib/core

// Most levels: of 2^32 leaves.
const TREE_LEVELS = 8u;

struct Levels {
    count: u32,
    start: array<u32, TREE_LEVELS>,
}

// Sum of a node's children, the first of which is word `at`: the upper half onto the lower one, again and again.
fn sum_of_children(at: u32) -> f32 {
    var x: array<f32, d.children>;
    for (var i = 0u; i < d.children; i++) { x[i] = get_f(at + i); }
    for (var half = d.children / 2u; half > 0u; half /= 2u) {
        for (var i = 0u; i < half; i++) { x[i] = keep(x[i] + x[i + half]); }
    }
    return x[0];
}

// The sum of all leaves.
fn tree_total(tree: u32) -> f32 {
    return sum_of_children(tree + d.levels.start[max(d.levels.count, 1u) - 1u]);
}

// The leaf in which `place` (0 to the total) lies, when leaves are laid end to end in order. Where rounding leads past
// the last child, the last one that is not empty takes what is left.
fn tree_find(tree: u32, place: f32) -> u32 {
    var at = place;
    var node = 0u;
    for (var level = d.levels.count; level > 0u; level--) {
        let first = tree + d.levels.start[level - 1u] + node * d.children;
        var before = 0.0;
        var below = 0.0;
        var chosen = 0u;
        for (var child = 0u; child < d.children; child++) {
            let sum = get_f(first + child);
            if (sum > 0.0 && before <= at) {
                chosen = child;
                below = before;
            }
            before = keep(before + sum);
        }
        at = keep(at - below);
        node = node * d.children + chosen;
    }
    return node;
}
